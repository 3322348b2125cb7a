"""Channel-wise distillation by hand; the formula at large is in test_references."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

from conftest import step_between
from segkd.errors import UserError
from segkd.losses.channelwise import Channelwise
from segkd.types import Tap


def test_by_hand() -> None:
    """Two channels of two places: the teacher's first is (3/4, 1/4), all others are (1/2, 1/2)."""
    teacher = torch.tensor([[log(3), 0.0], [7.0, 7.0]]).view(1, 2, 1, 2)
    divergence = 3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2)
    value = Channelwise(temperature=1)(step_between(torch.zeros(1, 2, 1, 2), teacher))
    assert value.item() == pytest.approx(divergence / 2, rel=1e-5)
    softened = Channelwise(temperature=4)(step_between(torch.zeros(1, 2, 1, 2), 4 * teacher))
    assert softened.item() == pytest.approx(16 * divergence / 2, rel=1e-5)


def test_a_level_of_a_channel_is_not_compared() -> None:
    scores = torch.randn(2, 3, 4, 5)
    assert Channelwise()(step_between(scores + torch.randn(2, 3, 1, 1), scores)) < 1e-6
    assert Channelwise()(step_between(scores * 2, scores)) > 1e-2


def test_padded_places_take_no_part() -> None:
    """Whatever stands there, even what would drown all others."""
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[..., 4:] = False
    inside = Channelwise()(step_between(student[..., :4], teacher[..., :4]))
    student[..., 4:] = 1e4
    torch.testing.assert_close(Channelwise()(step_between(student, teacher, valid=valid)), inside)


@pytest.mark.parametrize(("tap", "weight"), [("scores", 3), ("encoder", 50)])
def test_default_weight_is_the_papers(tap: str, weight: float) -> None:
    taps = {"scores": Tap(5, 8), "encoder": Tap(5, 8)}
    by_default, given = Channelwise(tap=tap), Channelwise(tap=tap, weight=0.5)
    by_default.connect(taps, taps)
    given.connect(taps, taps)
    assert (by_default.weight, given.weight) == (weight, 0.5)


def test_a_projector_is_made_where_widths_differ() -> None:
    alike, other = Channelwise(tap="encoder"), Channelwise(tap="encoder")
    alike.connect({"encoder": Tap(4, 8)}, {"encoder": Tap(4, 8)})
    other.connect({"encoder": Tap(4, 8)}, {"encoder": Tap(7, 8)})
    assert not list(alike.parameters())
    assert [p.shape for p in other.parameters()] == [(7, 4, 1, 1)]
    assert isinstance(other.projector, nn.Conv2d)
    other(step_between(torch.randn(2, 4, 3, 5), torch.randn(2, 7, 3, 5))).backward()
    assert other.projector.weight.grad is not None
    assert other.projector.weight.grad.norm() > 0


def test_faults() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        Channelwise(temperature=0)
    with pytest.raises(UserError, match="has 19 channels, and the teacher scores 11 classes"):
        Channelwise().connect({"scores": Tap(19, 8)}, {"scores": Tap(11, 8)})
    with pytest.raises(UserError, match="the teacher has no tap 'encoder'; it has scores"):
        Channelwise(tap="encoder").connect({"encoder": Tap(4, 8)}, {"scores": Tap(11, 8)})
