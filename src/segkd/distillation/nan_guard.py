"""Guard against NaN and Inf: it reports which value is not finite, saves the batch, and stops the run or skips the update."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.types import Batch

log = logging.getLogger(__name__)

MAX_SKIPS = 10
"""Consecutive skipped updates of a phase after which the weights themselves must be at fault."""


class NanGuard:
    """Prevents updates whose loss or gradient is not finite.

    The batch is saved as `not_finite_rank0.pt` in the run's folder, with images, target, valid, seeds; a later one replaces it.

    Args:
        mode: `stop` ends the run and leaves its checkpoints as they are; `skip` skips the update, and restores running
            statistics that the batch has spoiled.
    """

    def __init__(self, mode: Literal["stop", "skip"] = "stop") -> None:
        self.mode = mode
        self._skipped: Counter[str] = Counter()
        self._buffers: list[Tensor] = []

    def snapshot_buffers(self, student: nn.Module) -> None:
        """Copy the student's buffers before it processes a batch."""
        if self.mode == "skip":
            self._buffers = [buffer.clone() for buffer in student.buffers()]

    def allows_update(
        self, trainer: pl.Trainer, student: nn.Module, phase: str, batch: Batch, step: int, values: Mapping[str, Tensor]
    ) -> bool:
        """Return whether all values are finite in every process.

        Args:
            trainer: gives the strategy and the run's folder.
            student: its buffers are restored when the update is skipped.
            phase: name of the phase.
            batch: to be saved.
            step: batches before this one.
            values: scalars to check, by name.

        Raises:
            UserError: a value is not finite and mode is `stop`, or `MAX_SKIPS` updates in a row were skipped; names the values.
        """
        finite = torch.stack([value.isfinite() for value in values.values()])
        # One synchronization with the device per phase.
        if not trainer.strategy.reduce((~finite.all()).int(), reduce_op="max"):
            self._skipped[phase] = 0
            return True
        names = [name for name, is_finite in zip(values, finite.tolist(), strict=True) if not is_finite]
        self._skipped[phase] += 1
        message = self._save_batch(trainer, phase, batch, step, names)
        if self.mode == "stop" or self._skipped[phase] == MAX_SKIPS:
            if not trainer.is_global_zero:
                raise SystemExit(2)  # the first process reports for all
            before = "" if self.mode == "stop" else f", like the {MAX_SKIPS - 1} updates before it"
            alternative = " or trainer.on_nan=skip" if self.mode == "stop" else ""
            raise UserError(f"{message}{before}; try a lower learning rate, trainer.gradient_clip{alternative}")
        if trainer.is_global_zero:
            log.warning("%s; the update is skipped", message)
        self._restore_buffers(student)
        return False

    def _save_batch(self, trainer: pl.Trainer, phase: str, batch: Batch, step: int, names: list[str]) -> str:
        """Save the batch and return the message."""
        file = f"not_finite_rank{trainer.global_rank}.pt"
        directory = trainer.strategy.broadcast(trainer.default_root_dir)  # each process may have started in another
        with contextlib.suppress(OSError, RuntimeError):  # of a full disk
            torch.save({**batch._asdict(), "step": step, "phase": phase}, f"{directory}/{file}")
        subject = ", ".join(names) or "a value in another process"
        return f"{subject} of the {phase}'s update is not finite at step {step} (its batch is in {file})"

    def _restore_buffers(self, student: nn.Module) -> None:
        for buffer, snapshot in zip(student.buffers(), self._buffers, strict=True):
            if not buffer.isfinite().all():
                buffer.data.copy_(snapshot)  # through .data: a backward pass still to come does not notice
