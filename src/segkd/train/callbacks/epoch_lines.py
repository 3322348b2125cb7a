"""Show the progress of a training: a line at the end of each epoch, or a bar that counts epochs as the lines do."""

from __future__ import annotations

import logging
import time
from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from segkd.distillation.distiller import Distiller

log = logging.getLogger(__name__)


class EpochLines(pl.Callback):
    """Logs a line at the end of each epoch: step, loss, validation score, speed and the time that is left.

    Speed and time include validations and checkpoints.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._time, self._steps = time.monotonic(), int(cast("Distiller", pl_module).step_count)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the line; the epoch has been validated, if it is to be."""
        distiller, now = cast("Distiller", pl_module), time.monotonic()
        steps, epoch = int(distiller.step_count), trainer.current_epoch + 1
        if steps == self._steps:  # a resumed run repeats the end of an epoch
            return
        rate = (steps - self._steps) / max(now - self._time, 1e-9)
        self._time, self._steps = now, steps
        parts = [f"epoch {epoch}/{trainer.max_epochs} step {steps}"]
        if (total := trainer.callback_metrics.get("train/total")) is not None:
            parts.append(f"total {float(total):.3g}")
        if (miou := trainer.callback_metrics.get("val/miou")) is not None and _was_validated(trainer):
            parts.append(f"val mIoU {100 * float(miou):.1f}")
        left = distiller.total_steps - steps
        remaining = f", {format_duration(left / rate)} left" if left else ""
        log.info("%s, %.3g steps/s%s", " ".join(parts), rate, remaining)


class EpochBar(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1."""

    def _get_train_description(self, current_epoch: int) -> str:
        last = "" if self.trainer.max_epochs is None else f"/{self.trainer.max_epochs}"
        return f"Epoch {current_epoch + 1}{last}".ljust(len(self.validation_description))


def format_duration(seconds: float) -> str:
    """Return a duration in its two greatest units: `1 h 10 min`, `4 min 5 s`, `12 s`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"


def _was_validated(trainer: pl.Trainer) -> bool:
    return (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
