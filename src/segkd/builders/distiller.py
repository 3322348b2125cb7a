"""Build student, teacher, losses and discriminator from settings, and join them in the Distiller."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from segkd.builders.datamodule import count_steps_per_epoch, uses_teacher
from segkd.builders.networks import apply_speedups, build_network, check_teacher_weights
from segkd.config.instantiate import Spec
from segkd.config.training import TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.facts import DataFacts, OwnData
from segkd.data.statistics import compute_class_weights, count_classes
from segkd.distillation.adversary import Adversary
from segkd.distillation.averaging import build_ema
from segkd.distillation.distiller import Distiller
from segkd.distillation.nan_guard import NanGuard
from segkd.distillation.optimizers import group_by_decay
from segkd.distillation.schedules import Schedule
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import SegmentationModel
from segkd.models.frozen import Frozen

log = logging.getLogger(__name__)


D = TypeVar("D", bound=Distiller)


def build_distiller(settings: TrainSettings, datamodule: SegmentationDataModule) -> Distiller:
    """Return the LightningModule of a run; see `assemble_distiller`."""
    steps = count_steps_per_epoch(settings.trainer, datamodule) * settings.trainer.max_epochs
    return assemble_distiller(Distiller, settings, datamodule.train.source, steps)


def assemble_distiller(
    kind: type[D], settings: TrainSettings, dataset: SegmentationDataset | OwnData, total_steps: int | None
) -> D:
    """Return the LightningModule, with its networks, losses and discriminator set up for each other.

    Each part draws its weights from a seed of its own, so that the student starts the same with and without a teacher.

    Args:
        kind: the class to build.
        settings: its parts.
        dataset: the training split, or the facts of data that the user's own code loads.
        total_steps: batches of the run; None for those of the trainer.

    Raises:
        UserError: a teacher without weights, a checkpoint that does not fit, a missing feature, or a crop that is too small.
    """
    trainer, crop_size = settings.trainer, settings.data.crop_size or dataset.size
    terms = {name: build_loss(spec, dataset) for name, spec in settings.loss.items()}
    losses = LossSum(terms)
    torch.manual_seed(settings.seed)
    student = _build_student(settings, dataset, losses.extra_classes, crop_size)
    needs_classes = settings.adversary is not None or any(
        loss.needs_teacher and loss.needs_teacher_classes for loss in terms.values()
    )
    teacher = _build_teacher(settings, dataset, student.num_classes, needs_classes)
    teacher_features = None if teacher is None else teacher.network.features
    torch.manual_seed(settings.seed + 1)
    losses.setup(student.features, teacher_features)
    torch.manual_seed(settings.seed + 2)
    adversary = _build_adversary(settings, student)
    if adversary is not None:
        adversary.setup(student.features, teacher_features, crop_size)
    ema = None if trainer.ema is None else build_ema(student, trainer.ema)
    apply_speedups(student, trainer)
    return kind(
        student,
        teacher,
        losses,
        adversary,
        {name: partial(_build_optimizer, spec) for name, spec in settings.optimizers.items()},
        _build_schedule(settings.schedule),
        total_steps=total_steps,
        classes=dataset.classes,
        gradient_clip=trainer.gradient_clip,
        ema=ema,
        guard=NanGuard(trainer.on_nan),
        micro_batches=trainer.micro_batches,
    )


def build_loss(spec: Spec, dataset: SegmentationDataset | OwnData) -> Loss:
    """Return a loss; where `class_weights` is a rule, with weights computed from the labels of the training split.

    Raises:
        UserError: there is such a rule, and no labels to compute from.
    """
    given, rule = {}, spec.arguments.get("class_weights")
    if isinstance(rule, str) and isinstance(dataset, SegmentationDataset):
        counts = count_classes(dataset, progress=f"class weights of {dataset.display_name} {dataset.split}")
        void = spec.arguments.get("void") == "class"
        given = {"class_weights": compute_class_weights(rule, counts, void=void)}
    elif isinstance(rule, str):
        raise UserError(
            f"class_weights={rule} is computed from the labels of a dataset; give a list of {len(dataset.classes)} numbers"
        )
    loss: Loss = spec.build(**given)
    return loss


def _build_student(
    settings: TrainSettings, dataset: DataFacts, extra_classes: int, crop_size: tuple[int, int] | None
) -> SegmentationModel:
    student = build_network(settings.student, dataset, extra_classes, settings.check_classes)
    if not student.can_be_student:
        raise UserError(
            "a student is a single network for the dataset's classes; ensembles and class maps are for teachers"
        )
    if extra_classes:
        _check_void_class(settings, student, len(dataset.classes) + extra_classes)
    if crop_size is not None and min(crop_size) < student.min_size:
        raise UserError(
            f"data.crop_size={list(crop_size)} is less than the {student.min_size} pixels that {type(student).__name__} takes"
        )
    if settings.trainer.sync_batchnorm:
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
    return student


def _check_void_class(settings: TrainSettings, student: SegmentationModel, num_outputs: int) -> None:
    if settings.data.unlabeled is not None:
        raise UserError(
            "with void=class unlabeled images would be taught as void; leave void=class or data.unlabeled out"
        )
    if student.num_classes != num_outputs:
        raise UserError(
            f"void=class needs a student of {num_outputs} outputs, and student.checkpoint has {student.num_classes}; "
            "leave one of them out"
        )


def _build_teacher(settings: TrainSettings, dataset: DataFacts, num_classes: int, needs_classes: bool) -> Frozen | None:
    if settings.teacher is None:
        return None
    check_teacher_weights(settings.teacher, "teacher")
    if not uses_teacher(settings):
        log.info("no loss uses the teacher; it is not loaded, and the student learns from labels only")
        return None
    network = build_network(settings.teacher, dataset, check=settings.check_classes if needs_classes else None)
    if needs_classes and network.num_classes != num_classes:
        raise UserError(
            f"the teacher has {network.num_classes} outputs, the student {num_classes}; choose a teacher with the same classes, "
            "or map them with teacher.class_map (docs/how-to/teachers.md)"
        )
    apply_speedups(network, settings.trainer)
    return Frozen(network, settings.trainer.teacher_bf16)


def _build_adversary(settings: TrainSettings, student: SegmentationModel) -> Adversary | None:
    if settings.adversary is None:
        return None
    if not issubclass(settings.adversary.target, Adversary):
        raise UserError(
            f"adversary: {settings.adversary.path} is no Adversary; make it a subclass of segkd.distillation.adversary.Adversary"
        )
    discriminator = settings.adversary.arguments["discriminator"].build(num_classes=student.num_classes)
    adversary: Adversary = settings.adversary.build(discriminator=discriminator)
    return adversary


def _build_schedule(spec: Spec) -> Schedule:
    if not issubclass(spec.target, Schedule):
        raise UserError(
            f"schedule: {spec.path} cannot be called; define __call__(self, progress), which returns the factor of the learning rate"
        )
    schedule: Schedule = spec.build()
    return schedule


def _build_optimizer(spec: Spec, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Return an optimizer that decays matrices only."""
    optimizer: Optimizer = spec.build(params=group_by_decay(parameters))
    return optimizer
