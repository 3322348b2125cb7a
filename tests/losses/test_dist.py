"""DIST by hand; the full formula is in test_references."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.errors import UserError
from segkd.losses.dist import Dist
from segkd.types import FeatureInfo


def make_logits(*pixels: tuple[float, ...]) -> Tensor:
    """Return logits of class probabilities, one tuple a pixel: 1 K 1 n."""
    return torch.tensor([[log(p) for p in pixel] for pixel in pixels]).T[None, :, None]


def test_classes_in_a_pixel_by_hand() -> None:
    """Deviations (3, 0, −3)/12 against (2, −4, 2)/24: their product sums to zero; against (−3, 0, 3)/12, ρ = −1."""
    student = make_logits((7 / 12, 4 / 12, 1 / 12), (7 / 12, 4 / 12, 1 / 12))
    teacher = make_logits((10 / 24, 4 / 24, 10 / 24), (1 / 12, 4 / 12, 7 / 12))
    value = Dist(intra=0)(make_step_from_maps(student, teacher))
    assert value.item() == pytest.approx(((1 - 0) + (1 + 1)) / 2, rel=1e-5)


def test_pixels_in_a_class_by_hand() -> None:
    """The probabilities of two classes sum to 1, so both have one correlation: that of (1, 0, −1) with (1, −2, 1) is 0."""
    student = make_logits((0.6, 0.4), (0.5, 0.5), (0.4, 0.6))
    teacher = make_logits((0.6, 0.4), (0.3, 0.7), (0.6, 0.4))
    assert Dist(inter=0)(make_step_from_maps(student, teacher)).item() == pytest.approx(1, rel=1e-5)
    assert Dist(inter=0)(make_step_from_maps(student, student.flip(3))).item() == pytest.approx(2, rel=1e-5)


def test_linear_change_of_probabilities_does_not_matter() -> None:
    """Unlike a divergence."""
    teacher = torch.randn(2, 5, 3, 4).softmax(1)
    flatter = 0.3 * teacher + 0.7 / 5
    assert Dist()(make_step_from_maps(flatter.log(), teacher.log())) < 1e-5
    assert Dist()(make_step_from_maps(teacher.square().log(), teacher.log())) > 1e-3


def test_constant_probabilities_have_no_correlation() -> None:
    """An untrained student has a finite value and gradient."""
    student = torch.zeros(1, 3, 2, 2, requires_grad=True)
    value = Dist()(make_step_from_maps(student, torch.randn(1, 3, 2, 2)))
    assert value == 2
    assert (torch.autograd.grad(value, student)[0] == 0).all()


def test_different_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match="has 19 channels, and the teacher has 11 classes"):
        Dist().setup({"kd_logits": FeatureInfo(19, 8)}, {"kd_logits": FeatureInfo(11, 8)})
