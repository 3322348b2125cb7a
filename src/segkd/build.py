"""The one place where settings become objects, and objects meet."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers.logger import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segkd import devices
from segkd.adversary import Adversary
from segkd.callbacks.last_checkpoint import LastCheckpoint
from segkd.callbacks.shares import Shares
from segkd.config import TrainerSettings, TrainSettings
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.datamodule import SegmentationData
from segkd.data.images import UnlabelledImages
from segkd.data.on_device import OnDeviceAugmentation
from segkd.data.statistics import class_counts, class_weights
from segkd.data.transforms import Augmentation, Jitter
from segkd.distiller import Distiller
from segkd.errors import UserError
from segkd.guard import Guard
from segkd.losses.base import Loss
from segkd.losses.total import LossSum
from segkd.models.base import SegmentationModel
from segkd.models.ensemble import Ensemble, Remapped
from segkd.models.frozen import Frozen
from segkd.networks import check_weights, network
from segkd.nodes import Node, construct, target_of
from segkd.survival.checkpoints import Checkpoints


def dataset(node: Node, split: str) -> SegmentationDataset:
    """A split of the data set.

    Raises:
        UserError: the node is of something else, or the data set cannot be opened.
    """
    if not issubclass(kind := target_of(node), SegmentationDataset):
        raise UserError(f"{kind.__name__} is no data set; choose one with dataset=NAME")
    opened: SegmentationDataset = construct(node, split=split)
    return opened


def parts(node: Node, names: Sequence[str] | None, complete: bool) -> dict[str, FileDataset]:
    """Splits of a data set of files: those named, or all that it has; of splits that are others in one, these.

    Args:
        complete: see `FileDataset`.

    Raises:
        UserError: the data set has no files, or not those of a split.
    """
    kind = target_of(node)
    if not issubclass(kind, FileDataset):
        raise UserError(f"{kind.__name__} has no image and label files; choose another data set with dataset=NAME")
    first: FileDataset = construct(node, split=names[0] if names else "train", complete=False)
    wanted = names or first.splits
    single = dict.fromkeys(part for name in wanted for part in first.together.get(name, (name,)))
    opened: dict[str, FileDataset] = {name: construct(node, split=name, complete=False) for name in single}
    if not names:
        opened = {name: part for name, part in opened.items() if part.files} or {first.split: first}
    for part in opened.values():
        if complete or not part.files:
            part.require_all()
    return opened


def data(settings: TrainSettings) -> SegmentationData:
    """Training and validation batches.

    Raises:
        UserError: no data, or too little of it.
    """
    given = settings.data
    train, val = (dataset(settings.dataset, split) for split in (given.train_split, given.val_split))
    jitter = Jitter(**given.jitter.model_dump())
    kind = OnDeviceAugmentation if given.on_device else Augmentation
    augmentation = kind(crop_size(settings, train), given.scale, given.flip, jitter, train.mean)
    unlabelled = _unlabelled(settings, train)
    return SegmentationData(train, val, augmentation, given.batch_size, given.workers, settings.seed, *unlabelled)


def _unlabelled(settings: TrainSettings, facts: SegmentationDataset) -> tuple[UnlabelledImages | None, int]:
    """Images for distillation alone, and how many of them join each batch."""
    given = settings.data
    if given.unlabelled is None:
        return None, 0
    if given.on_device:
        raise UserError(
            "unlabelled images are read from their files; give data.on_device=false, or data.unlabelled=null"
        )
    if settings.teacher.get("_target_") is None or not _heard(settings):
        raise UserError(
            "unlabelled images teach nothing without a teacher and a loss that hears it; give model@teacher=NAME and such a "
            "loss, or data.unlabelled=null"
        )
    images = UnlabelledImages(given.unlabelled, facts.size[0])
    return images, max(1, round(given.batch_size * given.unlabelled_ratio))


def _heard(settings: TrainSettings) -> bool:
    """Whether anything listens to a teacher; one that nothing hears would only cost time."""
    return settings.adversary.get("_target_") is not None or any(
        target_of(node).needs_teacher for node in settings.loss.values()
    )


def crop_size(settings: TrainSettings, facts: SegmentationDataset) -> tuple[int, int]:
    """Height and width of training crops."""
    return settings.data.crop_size or facts.size


def distiller(settings: TrainSettings, served: SegmentationData) -> tuple[Distiller, list[str]]:
    """Student, teacher, losses and critic, connected; and what was read from their checkpoints.

    Raises:
        UserError: a teacher without weights, a checkpoint that does not fit, a tap or a size that does not.
    """
    facts = served.train.source
    losses = LossSum({name: loss(node, facts) for name, node in settings.loss.items()})
    # Each part draws its weights from a seed of its own: the student starts the same with or without a teacher.
    torch.manual_seed(settings.seed)
    student, found = _student(settings, facts, losses.more_outputs)
    teacher, found_teacher = _teacher(settings, facts)
    torch.manual_seed(settings.seed + 1)
    if teacher is not None and teacher.network.num_classes != student.num_classes:
        raise UserError(
            f"the teacher scores {teacher.network.num_classes} classes, the student {student.num_classes}; "
            "take a teacher of the same classes"
        )
    losses.connect(student.taps, None if teacher is None else teacher.network.taps)
    torch.manual_seed(settings.seed + 2)
    adversary = _adversary(settings, student)
    if adversary is not None:
        adversary.connect(student.taps, None if teacher is None else teacher.network.taps, crop_size(settings, facts))
    ema = None if settings.trainer.ema is None else moving_average(student, settings.trainer.ema)
    devices.quicken(student, settings.trainer)
    built = Distiller(
        student,
        teacher,
        losses,
        adversary,
        {name: partial(_optimizer, node) for name, node in settings.optimizers.items()},
        construct(settings.schedule),
        total_steps=steps_per_epoch(settings.trainer, served) * settings.trainer.max_epochs,
        classes=facts.classes,
        gradient_clip=settings.trainer.gradient_clip,
        ema=ema,
        guard=Guard(settings.trainer.on_nan),
        micro_batches=settings.trainer.micro_batches,
    )
    return built, [line for line in (found, found_teacher) if line]


def moving_average(student: SegmentationModel, decay: float) -> AveragedModel:
    """A copy of the student that follows its weights and running statistics: ours ← decay · ours + (1 - decay) · its."""
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(student, multi_avg_fn=follow, use_buffers=True).requires_grad_(False)


def trainer(
    settings: TrainerSettings,
    directory: Path,
    loggers: Sequence[Logger],
    last_checkpoint: LastCheckpoint | None = None,
    watchers: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Lightning's Trainer, with what it would get wrong for two players, or when asked to stop, switched off.

    Raises:
        UserError: an accelerator that is not there, or fewer devices than asked for.
    """
    devices.check_devices(settings)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own use of PyTorch
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    callbacks: list[pl.Callback] = [last_checkpoint or LastCheckpoint(Checkpoints(directory)), *watchers]
    if settings.shares_every is not None:
        callbacks.append(Shares(settings.shares_every))
    if settings.progress:
        # Twice a second; as often as Lightning would, it takes a quarter of a small network's time.
        callbacks.append(RichProgressBar(refresh_rate=2, console_kwargs={"stderr": True}))
    made = pl.Trainer(
        accelerator=devices.device(settings.accelerator).type,
        devices=settings.devices if settings.devices != "auto" or settings.accelerator != "cpu" else 1,
        num_nodes=settings.num_nodes,
        strategy=devices.strategy(settings),
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.max_epochs,
        check_val_every_n_epoch=settings.validate_every,
        log_every_n_steps=settings.log_every,
        limit_train_batches=settings.limit_train_batches,
        limit_val_batches=settings.limit_val_batches,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # what a validation before the fit leaves in the metric could not be added to within it
        logger=list(loggers),
        callbacks=callbacks,
        enable_progress_bar=settings.progress,
        enable_model_summary=False,
        default_root_dir=directory,
        # Its own requeueing saves within a signal's handler, in the middle of whatever is going on.
        plugins=SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None,
    )
    # Before each batch Lightning asks rank 0 whether it has had a SIGTERM; LastCheckpoint asks all of them.
    made.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return made


def loss(node: Node, train: SegmentationDataset) -> Loss:
    """A loss; where its class weights are to follow from the labels, with those of the training split."""
    given = {}
    if isinstance(rule := node.get("class_weights"), str):
        counts = class_counts(train, progress=f"class weights of {train.title()} {train.split}")
        given = {"class_weights": class_weights(rule, counts, void=node.get("void") == "class")}
    made: Loss = construct(node, **given)
    return made


def _student(settings: TrainSettings, facts: SegmentationDataset, more: int) -> tuple[SegmentationModel, str | None]:
    """The network to train, for the data set's classes and `more` outputs."""
    if settings.student.get("_target_") is None:
        raise UserError("there is no student; say which network to train: model@student=NAME")
    student, found = network(settings.student, facts, more)
    if isinstance(student, Ensemble | Remapped):
        raise UserError(
            "a student is one network that scores the data set's classes; ensembles and class maps are for teachers"
        )
    if more and settings.data.unlabelled is not None:
        raise UserError(
            "with void=class unlabelled images would be taught as void; leave void=class or data.unlabelled out"
        )
    if more and student.num_classes != len(facts.classes) + more:
        raise UserError(
            f"void=class needs a student of {len(facts.classes) + more} outputs, and student.checkpoint has "
            f"{student.num_classes}; leave one of them out"
        )
    if min(crop := crop_size(settings, facts)) < student.smallest:
        raise UserError(
            f"data.crop_size={list(crop)} is less than the {student.smallest} pixels that {type(student).__name__} takes"
        )
    if settings.trainer.sync_batchnorm:
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
    return student, found


def _teacher(settings: TrainSettings, facts: SegmentationDataset) -> tuple[Frozen | None, str | None]:
    node = settings.teacher
    if node.get("_target_") is None:
        if node.get("checkpoint") is not None:
            raise UserError(
                "teacher.checkpoint is given, but no teacher; say which network it holds: model@teacher=NAME"
            )
        return None, None
    check_weights(node, "teacher")
    if not _heard(settings):
        return None, "no loss hears the teacher: it is left out, and the student learns from labels alone"
    taught, found = network(node, facts)
    devices.quicken(taught, settings.trainer)
    return Frozen(taught, settings.trainer.teacher_bf16), found


def _adversary(settings: TrainSettings, student: SegmentationModel) -> Adversary | None:
    node = settings.adversary
    if node.get("_target_") is None:
        return None
    critic = construct(node["discriminator"], num_classes=student.num_classes)
    built: Adversary = construct(node, discriminator=critic)
    return built


def _optimizer(node: Node, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """An optimiser that decays matrices only: decay of scales, slopes and biases kills filters and helps nothing."""
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    made: Optimizer = construct(node, params=[group for group in groups if group["params"]])
    return made


def steps_per_epoch(settings: TrainerSettings, served: SegmentationData) -> int:
    """Batches of an epoch, as far as the settings let it go."""
    steps, limit = served.steps_per_epoch(), settings.limit_train_batches
    if limit is None:
        return steps
    return min(steps, limit) if isinstance(limit, int) else max(1, int(steps * limit))
