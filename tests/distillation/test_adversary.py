"""The critic's game: by hand on a critic that is a scalar product, and by properties on ours."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkd.distillation.adversary import Adversary, GANLoss, Hinge, Wasserstein
from segkd.errors import UserError
from segkd.models.discriminator import Discriminator
from segkd.types import Batch, FeatureInfo, Step
from tests.helpers.steps import make_step, make_step_from_maps


class Linear(nn.Module):
    """D(x) = ⟨w, x⟩: its slope is ‖w‖ everywhere."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return (maps * self.w).sum((1, 2, 3))


def player(critic: nn.Module, form: GANLoss, **options: Any) -> Adversary:
    return Adversary(critic, form, **options)


def ours(form: GANLoss | None = None, batch_norm: bool = False) -> Adversary:
    """A small critic of ours whose attention is awake."""
    critic = Discriminator(5, width=8)
    if batch_norm:
        critic.convolutions[1] = nn.Sequential(critic.convolutions[1], nn.BatchNorm2d(16, track_running_stats=False))
    for attention in critic.attentions.values():
        nn.init.constant_(attention.gamma, 0.5)
    return Adversary(critic, form or Wasserstein())


def part(step: Step, samples: slice) -> Step:
    """The step of some of its samples."""
    assert step.teacher is not None
    sides = (
        side._replace(logits=side.logits[samples], features={k: v[samples] for k, v in side.features.items()})
        for side in (step.student, step.teacher)
    )
    return Step(Batch(*(tensor[samples] for tensor in step.batch)), *sides, step.repeat)


# Probabilities of the classes: the student's (1/2, 1/2), the teacher's (3/4, 1/4).
BY_HAND = make_step_from_maps(torch.zeros(1, 2, 1, 1), torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1))


def test_wasserstein_by_hand() -> None:
    """w = (6, 8): D(student) = 7, D(teacher) = 6.5, ‖∇D‖ = 10."""
    adversary = player(Linear(6, 8), Wasserstein(gradient_penalty_weight=10), weight=0.1)
    loss, terms = adversary.discriminator_loss(BY_HAND)
    assert terms["discriminator/student"].item() == pytest.approx(7)
    assert terms["discriminator/teacher"].item() == pytest.approx(6.5)
    assert terms["discriminator/penalty"].item() == pytest.approx(81)
    assert loss.item() == pytest.approx(7 - 6.5 + 10 * 81)
    loss, terms = adversary.student_loss(BY_HAND)
    assert loss.item() == pytest.approx(-0.7)
    assert terms["adversarial"].item() == pytest.approx(-7)


def test_hinge_by_hand() -> None:
    """w = (1, −1): D(student) = 0, D(teacher) = 1/2; w = (4, −4) has the teacher beyond the margin."""
    for w, expected in ((1.0, 1 - 0.5 + 1 + 0), (4.0, 0 + 1 + 0)):
        loss, terms = player(Linear(w, -w), Hinge()).discriminator_loss(BY_HAND)
        assert loss.item() == pytest.approx(expected)
        assert "discriminator/penalty" not in terms


def test_penalty_is_finite_where_the_critic_is_flat() -> None:
    critic = Linear(0, 0)
    loss, terms = player(critic, Wasserstein()).discriminator_loss(BY_HAND)
    loss.backward()
    assert terms["discriminator/penalty"].item() == pytest.approx(1, abs=1e-4)
    assert critic.w.grad is not None
    assert critic.w.grad.isfinite().all()
    flat = torch.zeros(2, requires_grad=True)
    assert torch.autograd.grad(flat.square().sum().sqrt(), flat)[0].isnan().all()  # what the epsilon is there for


class Curved(nn.Module):
    """A smooth critic in float64 of two channels of a pixel."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = w

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("bkhw,jk->bj", maps, self.w)).sum(1)


def test_penalty_has_the_gradient_of_its_formula() -> None:
    """Of the critic's weights by finite differences, to the second order."""
    step = make_step_from_maps(*(torch.randn(2, 2, 1, 1, dtype=torch.float64) for _ in range(2)))
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def penalty(w: Tensor) -> Tensor:
        return player(Curved(w), Wasserstein()).discriminator_loss(step)[1]["discriminator/penalty"]

    assert penalty(w).requires_grad
    assert torch.autograd.gradcheck(penalty, w)
    assert torch.autograd.gradgradcheck(penalty, w)


def test_critic_can_be_differentiated_twice() -> None:
    critic = ours().discriminator.double().eval()
    maps = torch.rand(1, 5, 16, 16, dtype=torch.float64, requires_grad=True)
    images = torch.zeros(1, 3, 16, 16)
    assert torch.autograd.gradgradcheck(lambda m: critic(m, images), maps, fast_mode=True)


@pytest.mark.parametrize("side", ["discriminator_loss", "student_loss"])
def test_autocast_does_not_reach_the_critic(side: str) -> None:
    step, adversary = make_step(size=(16, 16)), ours()
    plain = getattr(deepcopy(adversary), side)(step)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = getattr(deepcopy(adversary), side)(step)[0]
        short = adversary.discriminator(step.student.logits, step.batch.images)
    assert torch.equal(plain, cast)
    assert cast.dtype == torch.float32
    assert short.dtype == torch.bfloat16  # the control: autocast would have reached it


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_sample_is_judged_alone(batch_norm: bool) -> None:
    """The losses of a batch are the means of those of its samples, the penalty's random points included."""
    step, adversary = make_step(size=(16, 17)), ours(batch_norm=batch_norm)
    for side in ("discriminator_loss", "student_loss"):

        def of(step: Step, side: str = side) -> Tensor:
            _, terms = getattr(deepcopy(adversary), side)(step)
            return torch.stack(list(terms.values())).detach()

        samples = torch.stack([of(part(step, slice(i, i + 1))) for i in range(3)])
        assert torch.allclose(of(step), samples.mean(0), rtol=1e-4, atol=1e-6) == (not batch_norm)


def test_random_points_follow_the_keys_and_the_draw() -> None:
    step, adversary = make_step(size=(16, 16)), ours()

    def penalty(step: Step) -> float:
        return deepcopy(adversary).discriminator_loss(step)[1]["discriminator/penalty"].item()

    assert penalty(step) == penalty(step)
    assert penalty(step) != penalty(step._replace(repeat=1))
    assert penalty(step) != penalty(step._replace(batch=step.batch._replace(seeds=step.batch.seeds + 7)))


def test_each_side_leaves_the_other_alone() -> None:
    step, adversary = make_step(size=(16, 16)), ours()
    before = deepcopy(adversary.state_dict())
    adversary.student_loss(step)[0].backward()
    assert step.student.logits.grad is not None
    assert step.student.logits.grad.norm() > 0
    assert all(torch.equal(value, before[key]) for key, value in adversary.state_dict().items())

    step = make_step(size=(16, 16))
    adversary.discriminator_loss(step)[0].backward()
    assert step.student.logits.grad is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adversary.parameters())
    after = adversary.state_dict()
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert moved == {key for key in after if key.endswith(("._u", "._v"))}


def test_power_iteration_advances_once_an_update() -> None:
    adversary = ours()
    by_hand = deepcopy(adversary.discriminator).train()
    for convolution in by_hand.convolutions:
        _ = convolution.weight  # read in training mode, a weight makes one iteration
    adversary.discriminator_loss(make_step(size=(16, 16)))
    states = adversary.discriminator.state_dict(), by_hand.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    _ = by_hand.convolutions[0].weight
    assert any(not torch.equal(states[0][key], by_hand.state_dict()[key]) for key in states[0])


def test_critic_sees_probabilities() -> None:
    """A constant added to all scores of a pixel changes nothing."""
    step, adversary = make_step(size=(16, 16)), ours()
    scores = step.student.features["kd_logits"]
    shifted = step._replace(student=step.student._replace(features={"kd_logits": scores + 5}))
    other = step._replace(student=step.student._replace(features={"kd_logits": 5 * scores}))
    value = adversary.student_loss(step)[0]
    torch.testing.assert_close(adversary.student_loss(shifted)[0], value)
    assert not torch.isclose(adversary.student_loss(other)[0], value, rtol=1e-4)


TAPS = {"kd_logits": FeatureInfo(5, 8), "encoder": FeatureInfo(64, 8)}


@pytest.mark.parametrize(
    ("student", "teacher", "crop", "told"),
    [
        (TAPS, None, (512, 512), "needs a teacher; give model@teacher=NAME"),
        ({"encoder": FeatureInfo(64, 8)}, TAPS, (512, 512), "the student has no feature 'kd_logits'; it has encoder"),
        (TAPS, {"kd_logits": FeatureInfo(19, 8)}, (512, 512), "has 5 channels, and the teacher scores 19 classes"),
        (TAPS, TAPS, (512, 127), r"data.crop_size=\[512, 127\] gives .* use crops of 128 pixels at least"),
    ],
)
def test_what_does_not_fit_is_refused(student: Any, teacher: Any, crop: tuple[int, int], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ours().setup(student, teacher, crop)


def test_what_fits_is_taken() -> None:
    ours().setup(TAPS, TAPS, (128, 128))
