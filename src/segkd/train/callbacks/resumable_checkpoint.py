"""Keeps the run resumable, and ends it where it can be resumed when it is asked to stop."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from segkd.distillation.distiller import Distiller
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.train.checkpointing.state import State, collect_state, count_steps, restore_optimizers, restore_rank_state
from segkd.utils.signals import GracefulShutdown

RETRY_SECONDS = 60.0
"""Seconds after which a checkpoint that could not be written is tried again."""
_SAVE = 1  # a wish of the clock; other wishes are numbers of signals, which are greater


class ResumableCheckpoint(Checkpoint):
    """Writes a checkpoint at every epoch's end, every so many steps and every so many minutes; puts the one back to resume from.

    It acts between batches, where the weights, the curves and all processes are at the same step: each process brings its
    wish (a signal; rank 0's clock), and the greatest is granted in all of them. An epoch's last step is saved with its end.
    Where a checkpoint cannot be written, training goes on and it is tried again.

    Args:
        files: where they go.
        recipe: what a run that continues this one must share with it.
        every_steps: None for never.
        every_minutes: None for never.
        signals: who asks to stop; None for nobody.
        resumed: the state to go on from; None for a new run.
    """

    # A `Checkpoint`, since Lightning runs these after the module's own end of an epoch, which averages BatchNorm's statistics.

    def __init__(
        self,
        files: CheckpointFiles,
        recipe: State | None = None,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        signals: GracefulShutdown | None = None,
        resumed: State | None = None,
    ) -> None:
        self.files, self.recipe, self.signals, self.resumed = (
            files,
            recipe or {},
            signals or GracefulShutdown(),
            resumed,
        )
        self.every_steps, self.seconds = every_steps, float("inf") if every_minutes is None else 60 * every_minutes
        self._due = time.monotonic() + self.seconds
        self._saved = -1 if resumed is None else count_steps(resumed)
        self._shared_batches = 0
        self._began, self._before = time.monotonic(), 0.0 if resumed is None else resumed.get("seconds", 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without those between a stop and its resumption."""
        return self._before + time.monotonic() - self._began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._defer_signals(trainer)
        if self.resumed is not None:
            # Not before: DistributedDataParallel gives rank 0's statistics to all.
            restore_rank_state(trainer, _distiller(pl_module), self.resumed)
            restore_optimizers(trainer, _distiller(pl_module), self.resumed)
            if trainer.current_epoch > self.resumed["epochs"]:
                pl_module.on_train_epoch_end()
        self.resumed = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        steps = int(_distiller(pl_module).step_count)
        wish = self._agree_on_request(trainer)
        due = wish == _SAVE or (self.every_steps is not None and steps > 0 and steps % self.every_steps == 0)
        if (due or wish > _SAVE) and steps != self._saved:
            self._save(trainer, pl_module, trainer.current_epoch)
        self._stop_if_requested(trainer, wish)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._defer_signals(trainer)
        if self.resumed is not None:
            restore_rank_state(trainer, _distiller(pl_module), self.resumed)
        own = torch.tensor(int(sum(trainer.num_val_batches)), device=trainer.strategy.root_device)
        self._shared_batches = int(trainer.strategy.reduce(own, reduce_op="min"))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING and batch_idx < self._shared_batches:
            wish = self._agree_on_request(trainer)
            if wish > _SAVE:
                self._save(trainer, pl_module, trainer.current_epoch)
            self._stop_if_requested(trainer, wish)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_requested(trainer, self._agree_on_request(trainer))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.signals.deferred = False

    def _defer_signals(self, trainer: pl.Trainer) -> None:
        self.signals.install()
        self.signals.deferred = trainer.state.fn == TrainerFn.FITTING

    def _agree_on_request(self, trainer: pl.Trainer) -> int:
        """The greatest of all processes' wishes: a signal's number, _SAVE, or 0."""
        timely = trainer.is_global_zero and time.monotonic() >= self._due
        own = torch.tensor(self.signals.received or _SAVE * timely, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(own, reduce_op="max"))

    def _stop_if_requested(self, trainer: pl.Trainer, wish: int) -> None:
        if wish > _SAVE:
            if trainer.is_global_zero:
                name, place = signal.Signals(wish).name, self.files.directory
                print(
                    f"segkd: stopped by {name} at step {self._saved}; resume=auto output_dir={place} goes on",
                    file=sys.stderr,
                )
            raise SystemExit(128 + wish)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epochs: int) -> None:
        state = collect_state(trainer, _distiller(pl_module), epochs, self.recipe, self.elapsed)
        wait = self.seconds
        if trainer.is_global_zero:
            try:
                self.files.write(state)
            except OSError as error:
                wait = min(RETRY_SECONDS, wait)
                print(
                    f"segkd: {self.files.last} cannot be written ({error.strerror}) at step {count_steps(state)}; the run goes on and tries "
                    "again",
                    file=sys.stderr,
                )
        self._saved, self._due = count_steps(state), time.monotonic() + wait


def _distiller(module: pl.LightningModule) -> Distiller:
    return cast("Distiller", module)
