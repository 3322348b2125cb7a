"""Log validation images with class masks, and a table of the IoU of each class, to Weights & Biases."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from segkd.distillation.distiller import Distiller
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.train.loggers.guarded import GuardedLogger
from segkd.types import IGNORE_INDEX, Batch
from segkd.utils.indices import space_indices

Array = npt.NDArray[np.uint8]

log = logging.getLogger(__name__)

MAX_SIDE = 512
"""Greatest side of a logged image in pixels; larger images are shrunk."""


class Panel(NamedTuple):
    """An image and its class masks."""

    image: Array
    """H W 3, RGB."""
    classes: dict[str, Array]
    """Source (truth, student, teacher) → H W, a class or IGNORE_INDEX."""


class ImagePanels(pl.Callback):
    """Logs `panels/NUMBER` (an image with masks of truth, student and, the first time, teacher) and the table `iou` to W&B.

    It does so at the first validation, at every `every`-th after it, and at the last. The images are evenly spaced over the
    validation set. The student's masks are the predictions that were scored. An error is logged, and ends the panels.

    Args:
        logger: the guarded W&B run.
        every: validations between panels; None for no panels.
        num_images: images of a panel.
    """

    def __init__(self, logger: GuardedLogger, every: int | None, num_images: int) -> None:
        self.logger, self.every, self.num_images = logger, every, num_images
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
        """Keep a panel of the batch's first image, if it is one of those to show."""
        if not self._is_due(trainer) or batch_idx not in space_indices(
            int(sum(trainer.num_val_batches)), self.num_images
        ):
            return
        try:
            self._panels[batch_idx] = self._make_panel(cast("Distiller", pl_module), batch, outputs)
        except Exception as error:
            self._disable(error)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the panels."""
        distiller = cast("Distiller", pl_module)
        panels, self._panels = self._panels, {}
        if panels:
            self._teacher_shown = True
            iou = {name: float(trainer.callback_metrics[f"val/iou/{name}"]) for name in distiller.classes}
            self.logger.log_media(lambda wandb: _build_media(wandb, panels, iou), int(distiller.step_count))

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if self.every is None or not self.logger.is_active or not trainer.is_global_zero:
            return False
        epoch = trainer.current_epoch + 1
        if trainer.state.fn != TrainerFn.FITTING or epoch == trainer.max_epochs:
            return True
        return (epoch // (trainer.check_val_every_n_epoch or 1) - 1) % self.every == 0

    def _make_panel(self, distiller: Distiller, batch: Batch, logits: Tensor) -> Panel:
        """Return the panel of the first image of a batch."""
        labels = {"truth": batch.target, "student": logits.argmax(1)}
        if distiller.teacher is not None and not self._teacher_shown:
            height, width = batch.target.shape[-2:]
            teacher = distiller.teacher.to(distiller.device)
            output = teacher(enlarge_to_minimum(batch.images[:1], teacher.network))
            labels["teacher"] = output.logits_at((height, width)).argmax(1)
        image = batch.images[0].permute(1, 2, 0).cpu().numpy()
        classes = {source: _shrink(mask[0].cpu().numpy().astype(np.uint8)) for source, mask in labels.items()}
        return Panel(_shrink(image, cv2.INTER_AREA), classes)

    def _disable(self, error: Exception) -> None:
        log.warning("no further images are sent to W&B (%s: %s)", type(error).__name__, error)
        self.every, self._panels = None, {}


def _shrink(image: Array, interpolation: int = cv2.INTER_NEAREST) -> Array:
    height, width = image.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return image
    return cast(
        "Array", cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=interpolation)
    )


def _build_media(wandb: Any, panels: dict[int, Panel], iou: dict[str, float]) -> dict[str, Any]:
    labels = {**dict(enumerate(iou)), IGNORE_INDEX: "void"}
    rows = [[name, None if math.isnan(value) else value] for name, value in iou.items()]
    images = {
        f"panels/{number}": wandb.Image(
            panel.image,
            masks={source: {"mask_data": classes, "class_labels": labels} for source, classes in panel.classes.items()},
        )
        for number, panel in panels.items()
    }
    return {**images, "iou": wandb.Table(columns=["class", "IoU"], data=rows)}
