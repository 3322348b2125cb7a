"""Channel-wise distillation by hand; the full formula is in test_references."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

from segkd.check_part.steps import make_step_from_maps
from segkd.errors import UserError
from segkd.losses.channelwise import Channelwise
from segkd.types import FeatureInfo


def test_value_by_hand() -> None:
    """Two channels of two positions: the teacher's first is (3/4, 1/4), all others are (1/2, 1/2)."""
    teacher = torch.tensor([[log(3), 0.0], [7.0, 7.0]]).view(1, 2, 1, 2)
    divergence = 3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2)
    value = Channelwise(temperature=1)(make_step_from_maps(torch.zeros(1, 2, 1, 2), teacher))
    assert value.item() == pytest.approx(divergence / 2, rel=1e-5)
    softened = Channelwise(temperature=4)(make_step_from_maps(torch.zeros(1, 2, 1, 2), 4 * teacher))
    assert softened.item() == pytest.approx(16 * divergence / 2, rel=1e-5)


def test_offset_of_a_channel_does_not_matter() -> None:
    logits = torch.randn(2, 3, 4, 5)
    assert Channelwise()(make_step_from_maps(logits + torch.randn(2, 3, 1, 1), logits)) < 1e-6
    assert Channelwise()(make_step_from_maps(logits * 2, logits)) > 1e-2


def test_padded_positions_are_ignored() -> None:
    """Even values that would dominate all others."""
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[..., 4:] = False
    inside = Channelwise()(make_step_from_maps(student[..., :4], teacher[..., :4]))
    student[..., 4:] = 1e4
    torch.testing.assert_close(Channelwise()(make_step_from_maps(student, teacher, valid=valid)), inside)


@pytest.mark.parametrize(("feature", "weight"), [("kd_logits", 3), ("encoder", 50)])
def test_default_weight_is_that_of_the_paper(feature: str, weight: float) -> None:
    features = {"kd_logits": FeatureInfo(5, 8), "encoder": FeatureInfo(5, 8)}
    default, explicit = Channelwise(feature=feature), Channelwise(feature=feature, weight=0.5)
    default.setup(features, features)
    explicit.setup(features, features)
    assert (default.weight, explicit.weight) == (weight, 0.5)


def test_projector_exists_where_widths_differ() -> None:
    equal, different = Channelwise(feature="encoder"), Channelwise(feature="encoder")
    equal.setup({"encoder": FeatureInfo(4, 8)}, {"encoder": FeatureInfo(4, 8)})
    different.setup({"encoder": FeatureInfo(4, 8)}, {"encoder": FeatureInfo(7, 8)})
    assert not list(equal.parameters())
    assert [p.shape for p in different.parameters()] == [(7, 4, 1, 1)]
    assert isinstance(different.projector, nn.Conv2d)
    different(make_step_from_maps(torch.randn(2, 4, 3, 5), torch.randn(2, 7, 3, 5))).backward()
    assert different.projector.weight.grad is not None
    assert different.projector.weight.grad.norm() > 0


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        Channelwise(temperature=0)
    with pytest.raises(UserError, match="has 19 channels, and the teacher has 11 classes"):
        Channelwise().setup({"kd_logits": FeatureInfo(19, 8)}, {"kd_logits": FeatureInfo(11, 8)})
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has kd_logits"):
        Channelwise(feature="encoder").setup({"encoder": FeatureInfo(4, 8)}, {"kd_logits": FeatureInfo(11, 8)})
