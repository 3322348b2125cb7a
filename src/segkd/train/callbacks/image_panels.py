"""What the student sees, at Weights & Biases: pictures with the classes over them, and a table of the classes' IoU."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from segkd.distillation.distiller import Distiller
from segkd.train.loggers.wandb import ResilientWandbLogger
from segkd.types import IGNORE_INDEX, Batch

Array = npt.NDArray[np.uint8]

MAX_SIDE = 512
"""Pixels of a picture's longer side; a larger one is shown smaller."""


class Panel(NamedTuple):
    """An image and what is said of it."""

    image: Array
    """H W 3, RGB."""
    classes: dict[str, Array]
    """By who says it (truth, student, teacher): H W, a class or IGNORE_INDEX."""


class ImagePanels(pl.Callback):
    """Logs `panels/NUMBER` (an image with the classes of truth and student over it, the first time the teacher's too) and `iou`.

    At the first validation, at every `every`-th after it, and at the last. The images are spread evenly over the validation
    set. The student's answers are those that were scored; of the teacher it asks for one each. Whatever fails here is told, and
    there are no further pictures.

    Args:
        curves: the run.
        every: None for never.
        images: how many.
    """

    def __init__(self, curves: ResilientWandbLogger, every: int | None, images: int) -> None:
        self.curves, self.every, self.images = curves, every, images
        self._panels: dict[int, Panel] = {}
        self._teacher_shown = False

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._due(trainer) or batch_idx not in evenly_spaced(int(sum(trainer.num_val_batches)), self.images):
            return
        try:
            self._panels[batch_idx] = self._panel(cast("Distiller", pl_module), batch, outputs)
        except Exception as error:
            self._disable(error)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        distiller = cast("Distiller", pl_module)
        panels, self._panels = self._panels, {}
        if panels:
            self._teacher_shown = True
            iou = {name: float(trainer.callback_metrics[f"val/iou/{name}"]) for name in distiller.classes}
            self.curves.log_media(lambda wandb: _media(wandb, panels, iou), int(distiller.step_count))

    def _due(self, trainer: pl.Trainer) -> bool:
        if self.every is None or self.curves.experiment is None or not trainer.is_global_zero:
            return False
        epoch = trainer.current_epoch + 1
        if trainer.state.fn != TrainerFn.FITTING or epoch == trainer.max_epochs:
            return True
        return (epoch // (trainer.check_val_every_n_epoch or 1) - 1) % self.every == 0

    def _panel(self, distiller: Distiller, batch: Batch, logits: Tensor) -> Panel:
        """Of the first image of a batch."""
        said = {"truth": batch.target, "student": logits.argmax(1)}
        if distiller.teacher is not None and not self._teacher_shown:
            height, width = batch.target.shape[-2:]
            answer = distiller.teacher.to(distiller.device)(batch.images[:1])
            said["teacher"] = answer.logits_at((height, width)).argmax(1)
        image = batch.images[0].permute(1, 2, 0).cpu().numpy()
        classes = {who: _small(labels[0].cpu().numpy().astype(np.uint8)) for who, labels in said.items()}
        return Panel(_small(image, cv2.INTER_AREA), classes)

    def _disable(self, error: Exception) -> None:
        print(f"segkd: there are no further pictures at W&B ({type(error).__name__}: {error})", file=sys.stderr)
        self.every, self._panels = None, {}


def evenly_spaced(count: int, images: int) -> set[int]:
    """So many places, or as many as there are, evenly over 0..count-1, the first among them."""
    return {place * count // images for place in range(images)} if count > images else set(range(count))


def _small(picture: Array, how: int = cv2.INTER_NEAREST) -> Array:
    height, width = picture.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return picture
    return cast("Array", cv2.resize(picture, (round(width * factor), round(height * factor)), interpolation=how))


def _media(wandb: Any, panels: dict[int, Panel], iou: dict[str, float]) -> dict[str, Any]:
    labels = {**dict(enumerate(iou)), IGNORE_INDEX: "void"}
    rows = [[name, None if math.isnan(value) else value] for name, value in iou.items()]
    pictures = {
        f"panels/{number}": wandb.Image(
            panel.image,
            masks={who: {"mask_data": classes, "class_labels": labels} for who, classes in panel.classes.items()},
        )
        for number, panel in panels.items()
    }
    return {**pictures, "iou": wandb.Table(columns=["class", "IoU"], data=rows)}
