"""Build student, teacher, losses and discriminator from settings, and join them in the Distiller."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segkd.builders.datamodule import count_steps_per_epoch, get_crop_size, uses_teacher
from segkd.builders.networks import apply_speedups, build_network, check_teacher_weights
from segkd.config.instantiate import Spec
from segkd.config.training import TrainSettings
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
from segkd.models.frozen import Frozen

log = logging.getLogger(__name__)


def build_distiller(settings: TrainSettings, datamodule: SegmentationDataModule) -> Distiller:
    """Return the LightningModule, with its networks, losses and discriminator set up for each other.

    Each part draws its weights from a seed of its own, so that the student starts the same with and without a teacher.

    Raises:
        UserError: a teacher without weights, a checkpoint that does not fit, a missing feature, or a crop that is too small.
    """
    dataset, trainer = datamodule.train.source, settings.trainer
    terms = {name: build_loss(spec, dataset) for name, spec in settings.loss.items()}
    losses = LossSum(terms)
    torch.manual_seed(settings.seed)
    student = _build_student(settings, dataset, losses.extra_classes)
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
        adversary.setup(student.features, teacher_features, get_crop_size(settings, dataset))
    ema = None if trainer.ema is None else build_ema(student, trainer.ema)
    apply_speedups(student, trainer)
    return Distiller(
        student,
        teacher,
        losses,
        adversary,
        {name: partial(_build_optimizer, spec) for name, spec in settings.optimizers.items()},
        settings.schedule.build(),
        total_steps=count_steps_per_epoch(trainer, datamodule) * trainer.max_epochs,
        classes=dataset.classes,
        gradient_clip=trainer.gradient_clip,
        ema=ema,
        guard=NanGuard(trainer.on_nan),
        micro_batches=trainer.micro_batches,
    )


def build_loss(spec: Spec, dataset: SegmentationDataset) -> Loss:
    """Return a loss; where `class_weights` is a rule, with weights computed from the labels of the training split."""
    given, rule = {}, spec.arguments.get("class_weights")
    if isinstance(rule, str):
        counts = count_classes(dataset, progress=f"class weights of {dataset.display_name} {dataset.split}")
        void = spec.arguments.get("void") == "class"
        given = {"class_weights": compute_class_weights(rule, counts, void=void)}
    loss: Loss = spec.build(**given)
    return loss


def build_ema(student: SegmentationModel, decay: float) -> AveragedModel:
    """Return the moving average of a student's weights and running statistics: ema ← decay · ema + (1 − decay) · student."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(student, multi_avg_fn=update, use_buffers=True).requires_grad_(False)


def _build_student(settings: TrainSettings, dataset: SegmentationDataset, extra_classes: int) -> SegmentationModel:
    student = build_network(settings.student, dataset, extra_classes, settings.check_classes)
    if not student.can_be_student:
        raise UserError(
            "a student is a single network for the dataset's classes; ensembles and class maps are for teachers"
        )
    if extra_classes:
        _check_void_class(settings, student, len(dataset.classes) + extra_classes)
    crop = get_crop_size(settings, dataset)
    if min(crop) < student.min_size:
        raise UserError(
            f"data.crop_size={list(crop)} is less than the {student.min_size} pixels that {type(student).__name__} takes"
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


def _build_teacher(
    settings: TrainSettings, dataset: SegmentationDataset, num_classes: int, needs_classes: bool
) -> Frozen | None:
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
    discriminator = settings.adversary.arguments["discriminator"].build(num_classes=student.num_classes)
    adversary: Adversary = settings.adversary.build(discriminator=discriminator)
    return adversary


def _build_optimizer(spec: Spec, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Return an optimizer that decays matrices only: decay of scales, slopes and biases removes filters and helps nothing."""
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer: Optimizer = spec.build(params=[group for group in groups if group["params"]])
    return optimizer
