"""Save checkpoints, and stop where the run can be resumed when a signal asks for it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from segkd.distillation.distiller import Distiller
from segkd.train.callbacks.own import OwnCallbacks
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.train.checkpointing.state import State, collect_state, count_steps, restore_optimizers, restore_rank_state
from segkd.utils.signals import GracefulShutdown

RETRY_SECONDS = 60.0
"""Seconds after which a checkpoint that could not be written is tried again."""
_SAVE = 1  # the clock's request; other requests are signal numbers, which are greater

log = logging.getLogger(__name__)


class ResumableCheckpoint(Checkpoint):
    """Saves at the end of every epoch, every so many steps and every so many minutes; restores the state to resume from.

    It acts between batches, where weights, curves and all ranks are at the same step: the ranks all-reduce (max) their
    requests, which are signals and rank 0's clock. An epoch's last step is saved with its end. Where a checkpoint cannot be
    written, training continues and the write is retried.

    Args:
        files: the checkpoints of the run's folder.
        fingerprint: what a run that resumes this one must share with it.
        every_steps: steps between saves; None for never.
        every_minutes: minutes between saves; None for never.
        shutdown: the signals that ask to stop; None for none.
        state: the state to resume from; None for a new run.
        own: the user's callbacks, whose state is saved and restored.
    """

    # A `Checkpoint`, since Lightning runs these after the module's own end of an epoch, which averages BatchNorm's statistics.

    def __init__(
        self,
        files: CheckpointFiles,
        fingerprint: State | None = None,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        shutdown: GracefulShutdown | None = None,
        state: State | None = None,
        own: OwnCallbacks | None = None,
    ) -> None:
        self.files, self.fingerprint, self.state = files, fingerprint or {}, state
        self.shutdown, self.own = shutdown or GracefulShutdown(), own or OwnCallbacks({})
        self.validated_steps: int | None = None
        """The number of batches that the weights of the last validation had been trained on."""
        self._own_states: Mapping[str, Any] = {} if state is None else state.get("callbacks", {})
        self.every_steps, self.seconds = every_steps, float("inf") if every_minutes is None else 60 * every_minutes
        self._next_save = time.monotonic() + self.seconds
        self._saved_steps = -1 if state is None else count_steps(state)
        self._shared_batches = 0
        self._start, self._earlier_seconds = time.monotonic(), 0.0 if state is None else state.get("seconds", 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds of training, without those between a stop and its resumption."""
        return self._earlier_seconds + time.monotonic() - self._start

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the state of the user's callbacks, once, when their own `setup` has run."""
        self.own.restore_states(self._own_states)
        self._own_states = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore what differs between ranks, and the optimizers."""
        self._defer_signals(trainer)
        if self.state is not None:
            # Not before: DistributedDataParallel gives rank 0's statistics to all.
            restore_rank_state(trainer, _as_distiller(pl_module), self.state)
            restore_optimizers(trainer, _as_distiller(pl_module), self.state)
            if trainer.current_epoch > self.state["epochs"]:
                pl_module.on_train_epoch_end()
        self.state = None

    def before_train_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time or a signal came; stop if a signal came."""
        steps = int(_as_distiller(pl_module).step_count)
        request = self._agree_on_request(trainer)
        is_due = request == _SAVE or (self.every_steps is not None and steps > 0 and steps % self.every_steps == 0)
        if (is_due or request > _SAVE) and steps != self._saved_steps:
            self._save(trainer, pl_module, trainer.current_epoch)
        self._stop_if_requested(trainer, request)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the batches that all ranks have, so that they can agree before each."""
        self._defer_signals(trainer)
        if self.state is not None:
            restore_rank_state(trainer, _as_distiller(pl_module), self.state)
        own = torch.tensor(int(sum(trainer.num_val_batches)), device=trainer.strategy.root_device)
        self._shared_batches = int(trainer.strategy.reduce(own, reduce_op="min"))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save and stop if a signal came."""
        if trainer.state.fn == TrainerFn.FITTING and batch_idx < self._shared_batches:
            request = self._agree_on_request(trainer)
            if request > _SAVE:
                self._save(trainer, pl_module, trainer.current_epoch)
            self._stop_if_requested(trainer, request)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note which weights have been validated."""
        self.validated_steps = int(_as_distiller(pl_module).step_count)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, which is complete unless a callback has stopped the training."""
        self._save(trainer, pl_module, trainer.current_epoch + trainer.is_last_batch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if a signal came since the last batch."""
        self._stop_if_requested(trainer, self._agree_on_request(trainer))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let signals end the process at once again."""
        self.shutdown.deferred = False

    def _defer_signals(self, trainer: pl.Trainer) -> None:
        self.shutdown.install()
        self.shutdown.deferred = trainer.state.fn == TrainerFn.FITTING

    def _agree_on_request(self, trainer: pl.Trainer) -> int:
        """Return the greatest request of all ranks: a signal's number, _SAVE, or 0."""
        is_time = trainer.is_global_zero and time.monotonic() >= self._next_save
        own = torch.tensor(self.shutdown.received or _SAVE * is_time, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(own, reduce_op="max"))

    def _stop_if_requested(self, trainer: pl.Trainer, request: int) -> None:
        if request > _SAVE:
            if trainer.is_global_zero:
                name, directory = signal.Signals(request).name, self.files.directory
                log.info(
                    "stopped by %s at step %d; continue with resume=auto output_dir=%s",
                    name,
                    self._saved_steps,
                    directory,
                )
            raise SystemExit(128 + request)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epochs: int) -> None:
        state = collect_state(trainer, _as_distiller(pl_module), epochs, self.fingerprint, self.elapsed)
        state["callbacks"] = self.own.collect_states()
        wait, steps = self.seconds, count_steps(state)
        if trainer.is_global_zero:
            try:
                self.files.write(state)
            except OSError as error:
                wait = min(RETRY_SECONDS, wait)
                log.warning(
                    "%s cannot be written (%s) at step %d; training continues, and the write is retried",
                    self.files.last, error.strerror, steps,
                )  # fmt: skip
        self._saved_steps, self._next_save = steps, time.monotonic() + wait


class BeforeBatches(pl.Callback):
    """Lets a checkpoint act before the other callbacks see a batch, or the state that it saves of them would contain that batch.

    Args:
        checkpoint: the last of the callbacks, as Lightning has it.
    """

    def __init__(self, checkpoint: ResumableCheckpoint) -> None:
        self.checkpoint = checkpoint

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time or a signal came; stop if a signal came."""
        self.checkpoint.before_train_batch(trainer, pl_module)


def _as_distiller(module: pl.LightningModule) -> Distiller:
    return cast("Distiller", module)
