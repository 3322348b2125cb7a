"""Channel-wise distillation by hand; the formula at large is in test_references."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

from segkd.errors import UserError
from segkd.losses.channelwise import Channelwise
from segkd.types import FeatureInfo
from tests.helpers.steps import make_step_from_maps


def test_by_hand() -> None:
    """Two channels of two places: the teacher's first is (3/4, 1/4), all others are (1/2, 1/2)."""
    teacher = torch.tensor([[log(3), 0.0], [7.0, 7.0]]).view(1, 2, 1, 2)
    divergence = 3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2)
    value = Channelwise(temperature=1)(make_step_from_maps(torch.zeros(1, 2, 1, 2), teacher))
    assert value.item() == pytest.approx(divergence / 2, rel=1e-5)
    softened = Channelwise(temperature=4)(make_step_from_maps(torch.zeros(1, 2, 1, 2), 4 * teacher))
    assert softened.item() == pytest.approx(16 * divergence / 2, rel=1e-5)


def test_a_level_of_a_channel_is_not_compared() -> None:
    scores = torch.randn(2, 3, 4, 5)
    assert Channelwise()(make_step_from_maps(scores + torch.randn(2, 3, 1, 1), scores)) < 1e-6
    assert Channelwise()(make_step_from_maps(scores * 2, scores)) > 1e-2


def test_padded_places_take_no_part() -> None:
    """Whatever stands there, even what would drown all others."""
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[..., 4:] = False
    inside = Channelwise()(make_step_from_maps(student[..., :4], teacher[..., :4]))
    student[..., 4:] = 1e4
    torch.testing.assert_close(Channelwise()(make_step_from_maps(student, teacher, valid=valid)), inside)


@pytest.mark.parametrize(("feature", "weight"), [("kd_logits", 3), ("encoder", 50)])
def test_default_weight_is_the_papers(feature: str, weight: float) -> None:
    features = {"kd_logits": FeatureInfo(5, 8), "encoder": FeatureInfo(5, 8)}
    by_default, given = Channelwise(feature=feature), Channelwise(feature=feature, weight=0.5)
    by_default.setup(features, features)
    given.setup(features, features)
    assert (by_default.weight, given.weight) == (weight, 0.5)


def test_a_projector_is_made_where_widths_differ() -> None:
    alike, other = Channelwise(feature="encoder"), Channelwise(feature="encoder")
    alike.setup({"encoder": FeatureInfo(4, 8)}, {"encoder": FeatureInfo(4, 8)})
    other.setup({"encoder": FeatureInfo(4, 8)}, {"encoder": FeatureInfo(7, 8)})
    assert not list(alike.parameters())
    assert [p.shape for p in other.parameters()] == [(7, 4, 1, 1)]
    assert isinstance(other.projector, nn.Conv2d)
    other(make_step_from_maps(torch.randn(2, 4, 3, 5), torch.randn(2, 7, 3, 5))).backward()
    assert other.projector.weight.grad is not None
    assert other.projector.weight.grad.norm() > 0


def test_faults() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        Channelwise(temperature=0)
    with pytest.raises(UserError, match="has 19 channels, and the teacher scores 11 classes"):
        Channelwise().setup({"kd_logits": FeatureInfo(19, 8)}, {"kd_logits": FeatureInfo(11, 8)})
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has scores"):
        Channelwise(feature="encoder").setup({"encoder": FeatureInfo(4, 8)}, {"kd_logits": FeatureInfo(11, 8)})
