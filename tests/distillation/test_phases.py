"""The phases: their order, parameters and objectives."""

from __future__ import annotations

import torch
from torch import nn

from segkd.check_part.steps import make_step
from segkd.distillation.adversary import Adversary, Hinge
from segkd.distillation.phases import build_phases
from segkd.losses.base import Loss
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.weighted_sum import LossSum
from segkd.models.discriminator import Discriminator
from segkd.types import Step


class LearnedLoss(Loss):
    """A loss with a parameter of its own, as a projector is."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, step: Step) -> torch.Tensor:
        return self.factor * step.student.logits.square().mean()


def make_parts() -> tuple[nn.Module, LossSum, Adversary]:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    student[0].requires_grad_(False)
    adversary = Adversary(Discriminator(5, width=8), Hinge(), weight=0.5, n_critic=3)
    return student, LossSum({"labels": CrossEntropy(), "learned": LearnedLoss()}), adversary


def test_without_a_discriminator_there_is_one_phase() -> None:
    student, losses, _ = make_parts()
    (phase,) = build_phases(student, losses, None)
    assert (phase.name, phase.repeats) == ("student", 1)
    assert phase.objective(make_step())[0] == losses(make_step())[0]


def test_discriminator_comes_first_and_repeats_n_critic_times() -> None:
    assert [(phase.name, phase.repeats) for phase in build_phases(*make_parts())] == [
        ("discriminator", 3),
        ("student", 1),
    ]


def test_every_trainable_parameter_is_in_one_phase() -> None:
    parts = make_parts()
    trained = [id(p) for phase in build_phases(*parts) for p in phase.parameters()]
    trainable = {id(p) for part in parts for p in part.parameters() if p.requires_grad}
    assert len(trained) == len(set(trained))
    assert set(trained) == trainable
    assert len(trainable) < sum(1 for part in parts for _ in part.parameters())  # frozen ones are in none


def test_student_minimizes_its_losses_and_the_adversarial_term() -> None:
    student, losses, adversary = make_parts()
    step = make_step(size=(16, 16))
    total, terms = build_phases(student, losses, adversary)[1].objective(step)
    adversarial = adversary.student_loss(step)[1]["adversarial"]
    torch.testing.assert_close(total, losses(step)[0] + 0.5 * adversarial)
    assert list(terms) == ["labels", "learned", "adversarial"]
