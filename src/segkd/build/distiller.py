"""The one place where settings become objects, and objects meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segkd.build.datamodule import count_steps_per_epoch, get_crop_size, uses_teacher
from segkd.build.networks import apply_speedups, build_network, check_teacher_weights
from segkd.config.instantiate import SpecDict, build_spec
from segkd.config.schema import TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.statistics import compute_class_weights, count_classes
from segkd.distillation.adversary import Adversary
from segkd.distillation.distiller import Distiller
from segkd.distillation.nan_guard import NanGuard
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import SegmentationModel
from segkd.models.ensemble import ClassRemap, Ensemble
from segkd.models.frozen import Frozen


def build_distiller(settings: TrainSettings, served: SegmentationDataModule) -> tuple[Distiller, list[str]]:
    """Student, teacher, losses and critic, connected; and what was read from their checkpoints.

    Raises:
        UserError: a teacher without weights, a checkpoint that does not fit, a feature or a size that does not.
    """
    facts = served.train.source
    losses = LossSum({name: build_loss(node, facts) for name, node in settings.loss.items()})
    # Each part draws its weights from a seed of its own: the student starts the same with or without a teacher.
    torch.manual_seed(settings.seed)
    student, found = _student(settings, facts, losses.extra_classes)
    teacher, found_teacher = _teacher(settings, facts)
    torch.manual_seed(settings.seed + 1)
    if teacher is not None and teacher.network.num_classes != student.num_classes:
        raise UserError(
            f"the teacher scores {teacher.network.num_classes} classes, the student {student.num_classes}; "
            "take a teacher of the same classes"
        )
    losses.setup(student.features, None if teacher is None else teacher.network.features)
    torch.manual_seed(settings.seed + 2)
    adversary = _adversary(settings, student)
    if adversary is not None:
        adversary.setup(
            student.features, None if teacher is None else teacher.network.features, get_crop_size(settings, facts)
        )
    ema = None if settings.trainer.ema is None else build_ema(student, settings.trainer.ema)
    apply_speedups(student, settings.trainer)
    built = Distiller(
        student,
        teacher,
        losses,
        adversary,
        {name: partial(_optimizer, node) for name, node in settings.optimizers.items()},
        build_spec(settings.schedule),
        total_steps=count_steps_per_epoch(settings.trainer, served) * settings.trainer.max_epochs,
        classes=facts.classes,
        gradient_clip=settings.trainer.gradient_clip,
        ema=ema,
        guard=NanGuard(settings.trainer.on_nan),
        micro_batches=settings.trainer.micro_batches,
    )
    return built, [line for line in (found, found_teacher) if line]


def build_ema(student: SegmentationModel, decay: float) -> AveragedModel:
    """A copy of the student that follows its weights and running statistics: ours ← decay · ours + (1 - decay) · its."""
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(student, multi_avg_fn=follow, use_buffers=True).requires_grad_(False)


def build_loss(node: SpecDict, train: SegmentationDataset) -> Loss:
    """A loss; where its class weights are to follow from the labels, with those of the training split."""
    given = {}
    if isinstance(rule := node.get("class_weights"), str):
        counts = count_classes(train, progress=f"class weights of {train.display_name()} {train.split}")
        given = {"class_weights": compute_class_weights(rule, counts, void=node.get("void") == "class")}
    made: Loss = build_spec(node, **given)
    return made


def _student(settings: TrainSettings, facts: SegmentationDataset, more: int) -> tuple[SegmentationModel, str | None]:
    """The network to train, for the data set's classes and `more` outputs."""
    if settings.student.get("_target_") is None:
        raise UserError("there is no student; say which network to train: model@student=NAME")
    student, found = build_network(settings.student, facts, more)
    if isinstance(student, Ensemble | ClassRemap):
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
    if min(crop := get_crop_size(settings, facts)) < student.min_size:
        raise UserError(
            f"data.crop_size={list(crop)} is less than the {student.min_size} pixels that {type(student).__name__} takes"
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
    check_teacher_weights(node, "teacher")
    if not uses_teacher(settings):
        return None, "no loss hears the teacher: it is left out, and the student learns from labels alone"
    taught, found = build_network(node, facts)
    apply_speedups(taught, settings.trainer)
    return Frozen(taught, settings.trainer.teacher_bf16), found


def _adversary(settings: TrainSettings, student: SegmentationModel) -> Adversary | None:
    node = settings.adversary
    if node.get("_target_") is None:
        return None
    critic = build_spec(node["discriminator"], num_classes=student.num_classes)
    built: Adversary = build_spec(node, discriminator=critic)
    return built


def _optimizer(node: SpecDict, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """An optimiser that decays matrices only: decay of scales, slopes and biases kills filters and helps nothing."""
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    made: Optimizer = build_spec(node, params=[group for group in groups if group["params"]])
    return made
