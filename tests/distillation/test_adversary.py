"""The adversarial losses: by hand on a discriminator that is a scalar product, and by properties on the real one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkd.check_part.steps import make_step, make_step_from_maps
from segkd.distillation.adversary import Adversary, GANLoss, Hinge, Wasserstein
from segkd.errors import UserError
from segkd.models.discriminator import Discriminator
from segkd.types import Batch, FeatureInfo, Step


class Linear(nn.Module):
    """D(x) = ⟨w, x⟩: its gradient has the norm ‖w‖ everywhere."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return (maps * self.w).sum((1, 2, 3))


def make_adversary(gan_loss: GANLoss | None = None, batch_norm: bool = False) -> Adversary:
    """Make a small discriminator whose attention is not zero."""
    discriminator = Discriminator(5, width=8)
    if batch_norm:
        discriminator.convolutions[1] = nn.Sequential(
            discriminator.convolutions[1], nn.BatchNorm2d(16, track_running_stats=False)
        )
    for attention in discriminator.attentions.values():
        nn.init.constant_(attention.gamma, 0.5)
    return Adversary(discriminator, gan_loss or Wasserstein())


def select_samples(step: Step, samples: slice) -> Step:
    """Return a step of some of the samples."""
    assert step.teacher is not None
    outputs = (
        output._replace(logits=output.logits[samples], features={k: v[samples] for k, v in output.features.items()})
        for output in (step.student, step.teacher)
    )
    return Step(Batch(*(tensor[samples] for tensor in step.batch)), *outputs, step.repeat)


# Probabilities of the classes: the student's (1/2, 1/2), the teacher's (3/4, 1/4).
BY_HAND = make_step_from_maps(torch.zeros(1, 2, 1, 1), torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1))


def test_wasserstein_by_hand() -> None:
    """w = (6, 8): D(student) = 7, D(teacher) = 6.5, ‖∇D‖ = 10."""
    adversary = Adversary(Linear(6, 8), Wasserstein(gradient_penalty_weight=10), weight=0.1)
    loss, terms = adversary.discriminator_loss(BY_HAND)
    assert terms["discriminator/student"].item() == pytest.approx(7)
    assert terms["discriminator/teacher"].item() == pytest.approx(6.5)
    assert terms["discriminator/penalty"].item() == pytest.approx(81)
    assert loss.item() == pytest.approx(7 - 6.5 + 10 * 81)
    loss, terms = adversary.student_loss(BY_HAND)
    assert loss.item() == pytest.approx(-0.7)
    assert terms["adversarial"].item() == pytest.approx(-7)


def test_hinge_by_hand() -> None:
    """w = (1, −1): D(student) = 0, D(teacher) = 1/2; with w = (4, −4) the teacher is beyond the margin."""
    for w, expected in ((1.0, 1 - 0.5 + 1 + 0), (4.0, 0 + 1 + 0)):
        loss, terms = Adversary(Linear(w, -w), Hinge()).discriminator_loss(BY_HAND)
        assert loss.item() == pytest.approx(expected)
        assert "discriminator/penalty" not in terms


def test_penalty_is_finite_where_the_discriminator_is_flat() -> None:
    discriminator = Linear(0, 0)
    loss, terms = Adversary(discriminator, Wasserstein()).discriminator_loss(BY_HAND)
    loss.backward()
    assert terms["discriminator/penalty"].item() == pytest.approx(1, abs=1e-4)
    assert discriminator.w.grad is not None
    assert discriminator.w.grad.isfinite().all()
    flat = torch.zeros(2, requires_grad=True)
    assert torch.autograd.grad(flat.square().sum().sqrt(), flat)[0].isnan().all()  # why there is an epsilon


class Curved(nn.Module):
    """A smooth discriminator in float64 of two channels of a pixel."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = w

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("bkhw,jk->bj", maps, self.w)).sum(1)


def test_penalty_has_the_gradient_of_its_formula() -> None:
    """Gradients of the discriminator's weights by finite differences, to the second order."""
    step = make_step_from_maps(*(torch.randn(2, 2, 1, 1, dtype=torch.float64) for _ in range(2)))
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def compute_penalty(w: Tensor) -> Tensor:
        return Adversary(Curved(w), Wasserstein()).discriminator_loss(step)[1]["discriminator/penalty"]

    assert compute_penalty(w).requires_grad
    assert torch.autograd.gradcheck(compute_penalty, w)
    assert torch.autograd.gradgradcheck(compute_penalty, w)


def test_discriminator_can_be_differentiated_twice() -> None:
    discriminator = make_adversary().discriminator.double().eval()
    maps = torch.rand(1, 5, 16, 16, dtype=torch.float64, requires_grad=True)
    images = torch.zeros(1, 3, 16, 16)
    assert torch.autograd.gradgradcheck(lambda m: discriminator(m, images), maps, fast_mode=True)


@pytest.mark.parametrize("method", ["discriminator_loss", "student_loss"])
def test_autocast_does_not_reach_the_discriminator(method: str) -> None:
    step, adversary = make_step(size=(16, 16)), make_adversary()
    plain = getattr(deepcopy(adversary), method)(step)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = getattr(deepcopy(adversary), method)(step)[0]
        short = adversary.discriminator(step.student.logits, step.batch.images)
    assert torch.equal(plain, cast)
    assert cast.dtype == torch.float32
    assert short.dtype == torch.bfloat16  # the control: autocast would have reached it


@pytest.mark.parametrize("batch_norm", [False, True])
def test_loss_is_the_mean_over_independent_samples(batch_norm: bool) -> None:
    """The losses of a batch are the means of its samples' losses, the random points of the penalty included."""
    step, adversary = make_step(size=(16, 17)), make_adversary(batch_norm=batch_norm)
    for method in ("discriminator_loss", "student_loss"):

        def compute_terms(step: Step, method: str = method) -> Tensor:
            _, terms = getattr(deepcopy(adversary), method)(step)
            return torch.stack(list(terms.values())).detach()

        samples = torch.stack([compute_terms(select_samples(step, slice(i, i + 1))) for i in range(3)])
        assert torch.allclose(compute_terms(step), samples.mean(0), rtol=1e-4, atol=1e-6) == (not batch_norm)


def test_random_points_depend_on_seeds_and_repeat() -> None:
    step, adversary = make_step(size=(16, 16)), make_adversary()

    def compute_penalty(step: Step) -> float:
        return deepcopy(adversary).discriminator_loss(step)[1]["discriminator/penalty"].item()

    assert compute_penalty(step) == compute_penalty(step)
    assert compute_penalty(step) != compute_penalty(step._replace(repeat=1))
    assert compute_penalty(step) != compute_penalty(
        step._replace(batch=step.batch._replace(seeds=step.batch.seeds + 7))
    )


def test_each_loss_leaves_the_other_network_alone() -> None:
    step, adversary = make_step(size=(16, 16)), make_adversary()
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
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {key for key in after if key.endswith(("._u", "._v"))}


def test_power_iteration_advances_once_per_update() -> None:
    adversary = make_adversary()
    expected = deepcopy(adversary.discriminator).train()
    for convolution in expected.convolutions:
        _ = convolution.weight  # read in training mode, a weight makes one iteration
    adversary.discriminator_loss(make_step(size=(16, 16)))
    states = adversary.discriminator.state_dict(), expected.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    _ = expected.convolutions[0].weight
    assert any(not torch.equal(states[0][key], expected.state_dict()[key]) for key in states[0])


def test_discriminator_input_is_probabilities() -> None:
    """A constant added to all logits of a pixel changes nothing."""
    step, adversary = make_step(size=(16, 16)), make_adversary()
    logits = step.student.features["kd_logits"]
    shifted = step._replace(student=step.student._replace(features={"kd_logits": logits + 5}))
    other = step._replace(student=step.student._replace(features={"kd_logits": 5 * logits}))
    value = adversary.student_loss(step)[0]
    torch.testing.assert_close(adversary.student_loss(shifted)[0], value)
    assert not torch.isclose(adversary.student_loss(other)[0], value, rtol=1e-4)


FEATURES = {"kd_logits": FeatureInfo(5, 8), "encoder": FeatureInfo(64, 8)}


@pytest.mark.parametrize(
    ("student", "teacher", "crop", "message"),
    [
        (FEATURES, None, (512, 512), "needs a teacher; give model@teacher=NAME"),
        (
            {"encoder": FeatureInfo(64, 8)},
            FEATURES,
            (512, 512),
            "the student has no feature 'kd_logits'; it has encoder",
        ),
        (FEATURES, {"kd_logits": FeatureInfo(19, 8)}, (512, 512), "has 5 channels, and the teacher has 19 classes"),
        (FEATURES, FEATURES, (512, 127), r"data.crop_size=\[512, 127\] gives .* use crops of at least 128 pixels"),
    ],
)
def test_unfit_features_are_refused(student: Any, teacher: Any, crop: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_adversary().setup(student, teacher, crop)


def test_smallest_crop_is_accepted() -> None:
    make_adversary().setup(FEATURES, FEATURES, (128, 128))
