"""Log each loss term's share of the student's gradient."""

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

    Only the student's own parameters count, not projectors. Shares are computed between the forward and the backward pass of the
    first batch and of every `every`-th after it, and the terms are not changed. The values go to the loggers directly, whatever
    `trainer.log_every` is.

    Args:
        every: batches between measurements; each costs a backward pass for each term.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wrap the objective of the student's phase."""
        assert isinstance(pl_module, Distiller)
        pl_module.phases = [
            self._wrap(phase, pl_module) if phase.name == "student" else phase for phase in pl_module.phases
        ]

    def _wrap(self, phase: Phase, distiller: Distiller) -> Phase:
        def compute_objective(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
            total, terms = phase.objective(step)
            if int(distiller.step_count) % self.every == 0:
                self._log(terms, phase.get_weights(), distiller)
            return total, terms

        return replace(phase, objective=compute_objective)

    @staticmethod
    def _log(terms: Mapping[str, Tensor], weights: Mapping[str, float], distiller: Distiller) -> None:
        shares = compute_gradient_shares(compute_gradient_norms(terms, distiller.student.parameters()), weights)
        # Lightning would repeat a value that is logged rarely in every row until the next.
        for logger in distiller.loggers:
            logger.log_metrics(
                {f"share/{name}": share.item() for name, share in shares.items()}, int(distiller.step_count)
            )
