"""Phases: the part of a training step that belongs to one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from segkd.distillation.adversary import Adversary
from segkd.losses.weighted_sum import LossSum
from segkd.types import Step

Objective = Callable[[Step], tuple[Tensor, dict[str, Tensor]]]
"""Returns the value to minimize, and the raw terms to log."""


@dataclass(frozen=True)
class Phase:
    """An objective, the modules whose parameters it trains, and how often it runs per batch."""

    name: str
    objective: Objective
    modules: tuple[nn.Module, ...]
    repeats: int = 1
    get_weights: Callable[[], dict[str, float]] = dict
    """Returns the weights of the raw terms, where the objective is their weighted sum."""

    def parameters(self) -> list[nn.Parameter]:
        """Return all parameters that the optimizer of this phase trains."""
        return [p for module in self.modules for p in module.parameters() if p.requires_grad]


def build_phases(student: nn.Module, losses: LossSum, adversary: Adversary | None) -> list[Phase]:
    """Build the phases of a step; in the paper's order the student plays against the updated discriminator."""
    if adversary is None:
        return [Phase("student", losses, (student, losses), get_weights=losses.get_weights)]

    def compute_student_objective(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = losses(step)
        adversarial_loss, adversarial_terms = adversary.student_loss(step)
        return total + adversarial_loss, {**terms, **adversarial_terms}

    def get_weights() -> dict[str, float]:
        return {**losses.get_weights(), "adversarial": adversary.weight}

    discriminator_phase = Phase("discriminator", adversary.discriminator_loss, (adversary,), adversary.n_critic)
    student_phase = Phase("student", compute_student_objective, (student, losses), get_weights=get_weights)
    if adversary.update_first == "discriminator":
        return [discriminator_phase, student_phase]
    return [student_phase, discriminator_phase]
