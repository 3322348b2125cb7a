"""Which term of the student's objective moves the student, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytorch_lightning as pl
from torch import Tensor

from segkd.distillation.distiller import Distiller
from segkd.distillation.gradient_shares import compute_gradient_norms, compute_gradient_shares
from segkd.distillation.phases import Phase
from segkd.types import Step


class GradientShares(pl.Callback):
    """Logs `share/NAME`, each weighted term's share of the student's gradient: its norm over the sum of all norms.

    Of the student's parameters alone, not of projectors. It looks at the terms between the forward and the backward pass of
    the first batch and of every `every`-th after it, and passes them on as they are. The values go to the loggers by
    themselves, whatever `trainer.log_every` is.

    Args:
        every: batches from one look to the next; each look costs a backward pass for each term.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Distiller)
        pl_module.phases = [
            self._watched(phase, pl_module) if phase.name == "student" else phase for phase in pl_module.phases
        ]

    def _watched(self, phase: Phase, distiller: Distiller) -> Phase:
        def objective(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
            total, terms = phase.objective(step)
            if int(distiller.step_count) % self.every == 0:
                self._log(terms, phase.weights(), distiller)
            return total, terms

        return replace(phase, objective=objective)

    @staticmethod
    def _log(terms: Mapping[str, Tensor], weights: Mapping[str, float], distiller: Distiller) -> None:
        found = compute_gradient_shares(compute_gradient_norms(terms, distiller.student.parameters()), weights)
        # Lightning would write a value that is logged at times again in every row until the next.
        for logger in distiller.loggers:
            logger.log_metrics(
                {f"share/{name}": share.item() for name, share in found.items()}, int(distiller.step_count)
            )
