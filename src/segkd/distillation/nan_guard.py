"""What happens when a number is none: it is said which, the batch is kept, and the run stops or leaves the update out."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.types import Batch

MAX_SKIPS = 10
"""Updates of a phase left out one after another after which the weights themselves must be at fault."""


class NanGuard:
    """Keeps updates whose loss or gradient is not finite from the weights.

    The batch goes to `not_finite_rank0.pt` in the run's folder, as images, target, valid, keys; a later one replaces it.

    Args:
        mode: stop ends the run with its checkpoints as they are; skip leaves the update out, and restores running statistics
            that the batch has spoilt.
    """

    def __init__(self, mode: Literal["stop", "skip"] = "stop") -> None:
        self.mode = mode
        self._skipped: Counter[str] = Counter()
        self._statistics: list[Tensor] = []

    def snapshot_buffers(self, student: nn.Module) -> None:
        """Keep the student's statistics as they are before it sees a batch."""
        if self.mode == "skip":
            self._statistics = [buffer.clone() for buffer in student.buffers()]

    def allows_update(
        self, trainer: pl.Trainer, student: nn.Module, phase: str, batch: Batch, step: int, values: Mapping[str, Tensor]
    ) -> bool:
        """Whether the update of a phase may be made: all values are finite, in every process.

        Raises:
            UserError: they are not, and mode is stop, or this was so too often; names the first that is not.
        """
        finite = torch.stack([value.isfinite() for value in values.values()])
        if not trainer.strategy.reduce((~finite.all()).int(), reduce_op="max"):  # one look at the device a phase
            self._skipped[phase] = 0
            return True
        bad = [name for name, well in zip(values, finite.tolist(), strict=True) if not well]
        self._skipped[phase] += 1
        said = self._keep(trainer, phase, batch, step, bad)
        if self.mode == "stop" or self._skipped[phase] == MAX_SKIPS:
            if not trainer.is_global_zero:
                raise SystemExit(2)  # the first process speaks for all
            again = "" if self.mode == "stop" else f", and so were the {MAX_SKIPS - 1} before it"
            other = " or trainer.on_nan=skip" if self.mode == "stop" else ""
            raise UserError(f"{said}{again}; try a lower learning rate, trainer.gradient_clip{other}")
        if trainer.is_global_zero:
            print(f"segkd: {said}; this update is left out", file=sys.stderr)
        self._restore(student)
        return False

    def _keep(self, trainer: pl.Trainer, phase: str, batch: Batch, step: int, bad: list[str]) -> str:
        file = f"not_finite_rank{trainer.global_rank}.pt"
        with contextlib.suppress(OSError, RuntimeError):  # of a full disk
            torch.save({**batch._asdict(), "step": step, "phase": phase}, f"{trainer.default_root_dir}/{file}")
        what = ", ".join(bad) or "a value of another process"
        return f"{what} of the {phase}'s update is not finite at step {step} (its batch is in {file})"

    def _restore(self, student: nn.Module) -> None:
        for buffer, before in zip(student.buffers(), self._statistics, strict=True):
            if not buffer.isfinite().all():
                buffer.data.copy_(before)  # unseen by a backward pass of the same batch that is still to come
