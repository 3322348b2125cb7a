"""Keeps the run resumable."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after every epoch; the one before stays until the new one is whole."""

    # A `Checkpoint`, since Lightning runs these after the module's own end of an epoch, which averages BatchNorm's statistics.

    def __init__(self, directory: Path) -> None:
        self.path = directory / "last.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        partial = self.path.with_suffix(".part")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.path)
