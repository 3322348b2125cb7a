"""Attention transfer by hand; the full formula is in test_references."""

from __future__ import annotations

import pytest
import torch

from segkd.check_part.steps import make_step_from_maps
from segkd.errors import UserError
from segkd.losses.attention import Attention
from segkd.types import FeatureInfo


def test_value_by_hand() -> None:
    """The student's attention (9, 16) is (0.49…, 0.87…) at length 1; the teacher is active at the first position."""
    student = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[-5.0, 0.0]]).view(1, 1, 1, 2)
    cosine = 9 / (9**2 + 16**2) ** 0.5
    assert Attention()(make_step_from_maps(student, teacher)).item() == pytest.approx(2 - 2 * cosine)


def test_scale_and_sign_do_not_matter() -> None:
    features = torch.randn(2, 6, 4, 5)
    assert Attention()(make_step_from_maps(-3 * features, features)) < 1e-9
    assert Attention()(make_step_from_maps(features.flip(3), features)) > 1e-2


def test_zero_features_get_a_zero_gradient() -> None:
    student = torch.zeros(1, 3, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(Attention()(make_step_from_maps(student, torch.randn(1, 3, 2, 2))), student)
    assert (gradient == 0).all()


def test_missing_feature_is_refused() -> None:
    with pytest.raises(UserError, match="the student has no feature 'encoder'; it has kd_logits"):
        Attention().setup({"kd_logits": FeatureInfo(3, 8)}, {"encoder": FeatureInfo(3, 8)})
