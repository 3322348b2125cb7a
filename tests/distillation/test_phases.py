"""Who is trained, by what, and when."""

from __future__ import annotations

import torch
from torch import nn

from segkd.distillation.adversary import Adversary, Hinge
from segkd.distillation.phases import build_phases
from segkd.losses.base import Loss
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.weighted_sum import LossSum
from segkd.models.discriminator import Discriminator
from segkd.types import Step
from tests.helpers.steps import make_step


class Learned(Loss):
    """A loss with a parameter of its own, as a projector is."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, step: Step) -> torch.Tensor:
        return self.factor * step.student.logits.square().mean()


def players() -> tuple[nn.Module, LossSum, Adversary]:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    student[0].requires_grad_(False)
    adversary = Adversary(Discriminator(5, width=8), Hinge(), weight=0.5, n_critic=3)
    return student, LossSum({"labels": CrossEntropy(), "learned": Learned()}), adversary


def test_without_a_critic_there_is_one_phase() -> None:
    student, losses, _ = players()
    (phase,) = build_phases(student, losses, None)
    assert (phase.name, phase.repeats) == ("student", 1)
    assert phase.objective(make_step())[0] == losses(make_step())[0]


def test_critic_comes_first_and_as_often_as_it_says() -> None:
    assert [(phase.name, phase.repeats) for phase in build_phases(*players())] == [("discriminator", 3), ("student", 1)]


def test_every_trainable_parameter_is_in_one_phase() -> None:
    made = players()
    trained = [id(p) for phase in build_phases(*made) for p in phase.parameters()]
    everything = {id(p) for player in made for p in player.parameters() if p.requires_grad}
    assert len(trained) == len(set(trained))
    assert set(trained) == everything
    assert len(everything) < sum(1 for player in made for _ in player.parameters())  # what is frozen is in none


def test_student_minimises_its_losses_and_the_critics_verdict() -> None:
    student, losses, adversary = players()
    step = make_step(size=(16, 16))
    total, terms = build_phases(student, losses, adversary)[1].objective(step)
    verdict = adversary.student_loss(step)[1]["adversarial"]
    torch.testing.assert_close(total, losses(step)[0] + 0.5 * verdict)
    assert list(terms) == ["labels", "learned", "adversarial"]
