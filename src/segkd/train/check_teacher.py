"""Check, before the first step, that the teacher is better than a constant prediction."""

from __future__ import annotations

import logging
from functools import partial

from rich.console import Console

from segkd.config.training import TrainSettings
from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores, constant_class_miou
from segkd.models.class_names import has_classes
from segkd.utils.devices import resolve_device

NUM_IMAGES = 16
"""Validation images, evenly spaced, on which the teacher is scored."""

log = logging.getLogger(__name__)


def check_teacher(settings: TrainSettings, distiller: Distiller, datamodule: SegmentationDataModule) -> None:
    """Score the teacher on a slice of the validation split, and print the result; skip it with `check_teacher=off`.

    Raises:
        UserError: with `check_teacher=stop`, where its mIoU is not above that of the best constant class.
    """
    teacher = distiller.teacher
    if teacher is None or settings.check_teacher == "off":
        return
    dataset, num_classes = datamodule.val.source, len(distiller.classes)
    if not has_classes(teacher.network, distiller.classes, settings.check_classes):
        log.info(
            "the teacher has other classes than %s; its features alone are used, and it is not scored",
            dataset.display_name,
        )
        return
    device = resolve_device("auto" if settings.dry_run else settings.trainer.accelerator, key="trainer.accelerator")
    score = partial(compute_confusion_matrix, teacher.network, dataset, device=device, limit=NUM_IMAGES)
    matrix = score()
    miou, constant_miou = Scores.from_confusion_matrix(matrix, num_classes).miou, constant_class_miou(matrix)
    verdict = (
        f"teacher: mIoU {100 * miou:.2f} on {min(NUM_IMAGES, len(datamodule.val))} images of {dataset.split}; "
        f"the best constant class has {100 * constant_miou:.2f}"
    )
    if teacher.bf16:
        with teacher.use_precision(device):
            bf16_miou = Scores.from_confusion_matrix(score(), num_classes).miou
        verdict += f"; in bfloat16 the teacher has {100 * bf16_miou:.2f}"
    if miou > constant_miou:
        Console(stderr=not settings.dry_run, markup=False, emoji=False).print(verdict)
    elif settings.check_teacher == "stop":
        raise UserError(
            f"{verdict}. It has nothing to teach here: check its weights and classes (check_teacher=warn continues nevertheless)"
        )
    else:
        log.warning("%s; continuing, as check_teacher=warn says", verdict)
