"""One optimiser's share of a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from segkd.distillation.adversary import Adversary
from segkd.losses.weighted_sum import LossSum
from segkd.types import Step

Objective = Callable[[Step], tuple[Tensor, dict[str, Tensor]]]
"""What is minimised, and the raw terms to log."""


@dataclass(frozen=True)
class Phase:
    """What is minimised, over whose parameters, how often a batch."""

    name: str
    objective: Objective
    modules: tuple[nn.Module, ...]
    repeats: int = 1
    weights: Callable[[], dict[str, float]] = dict
    """Of the raw terms, where the objective is their weighted sum."""

    def parameters(self) -> list[nn.Parameter]:
        """All that this phase's optimiser moves."""
        return [p for module in self.modules for p in module.parameters() if p.requires_grad]


def build_phases(student: nn.Module, losses: LossSum, adversary: Adversary | None) -> list[Phase]:
    """The phases of a step; in the paper's order the critic is first, and the student against the updated critic."""
    if adversary is None:
        return [Phase("student", losses, (student, losses), weights=losses.weights)]

    def objective(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = losses(step)
        opposed, more = adversary.student_loss(step)
        return total + opposed, {**terms, **more}

    def weights() -> dict[str, float]:
        return {**losses.weights(), "adversarial": adversary.weight}

    critic = Phase("discriminator", adversary.discriminator_loss, (adversary,), adversary.n_critic)
    learner = Phase("student", objective, (student, losses), weights=weights)
    return [critic, learner] if adversary.update_first == "discriminator" else [learner, critic]
