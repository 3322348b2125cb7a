"""Hints by hand; the full formula is in test_references."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segkd.check_part.steps import make_step_from_maps
from segkd.distillation.phases import build_phases
from segkd.errors import UserError
from segkd.losses.features import make_projector
from segkd.losses.hint import Hint
from segkd.losses.weighted_sum import LossSum
from segkd.types import FeatureInfo


def test_value_by_hand() -> None:
    """R (1, 2) = (1 + 2, 1 − 2) where the teacher has (5, 0): squares 4 and 1."""
    loss = Hint()
    loss.setup({"encoder": FeatureInfo(2, 8)}, {"encoder": FeatureInfo(2, 8)})
    loss.load_state_dict({"projector.weight": torch.tensor([[1.0, 1.0], [1.0, -1.0]]).view(2, 2, 1, 1)})
    student, teacher = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), torch.tensor([5.0, 0.0]).view(1, 2, 1, 1)
    assert loss(make_step_from_maps(student, teacher)).item() == pytest.approx((4 + 1) / 2)


def test_projector_is_trained_with_the_student() -> None:
    """It finds the linear map from which the teacher was made."""
    features = torch.randn(2, 3, 4, 5)
    step = make_step_from_maps(features, torch.einsum("tc,bcyx->btyx", torch.randn(6, 3), features))
    loss = Hint()
    loss.setup({"encoder": FeatureInfo(3, 8)}, {"encoder": FeatureInfo(6, 8)})
    (phase,) = build_phases(nn.Identity(), LossSum({"hint": loss}), None)
    before = loss(step).item()
    optimizer = torch.optim.SGD(phase.parameters(), lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert loss(step).item() < 1e-3 * before


def test_projector_is_exact_under_autocast() -> None:
    """A plain layer rounds 1 + 2⁻¹² to 1 in bfloat16."""
    projector, maps = make_projector(FeatureInfo(1, 8), FeatureInfo(1, 8)), torch.full((1, 1, 1, 1), 1 + 2**-12)
    plain = nn.Conv2d(1, 1, 1, bias=False)
    for layer in (projector, plain):
        nn.init.ones_(layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert projector(maps).item() == maps.item()
        assert projector(maps.bfloat16()).dtype == torch.float32
        assert plain(maps).item() == 1


def test_missing_feature_is_refused() -> None:
    with pytest.raises(UserError, match="the student has no feature 'encoder'; it has kd_logits"):
        Hint().setup({"kd_logits": FeatureInfo(3, 8)}, {"encoder": FeatureInfo(3, 8)})
