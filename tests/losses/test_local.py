"""Local pair-wise distillation by hand; the full formula is in test_references."""

from __future__ import annotations

import pytest
import torch

from segkd.check_part.steps import make_step_from_maps
from segkd.errors import UserError
from segkd.losses.local import Local
from segkd.types import FeatureInfo


def test_value_by_hand() -> None:
    """A row of four positions: the teacher's are all equal, the student's last is orthogonal to the rest."""
    student = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 5.0]]).view(1, 2, 1, 4)
    teacher = torch.ones(1, 1, 1, 4)
    # Of three pairs of neighbors the last differs by 1; the first and the last position are no neighbors.
    assert Local()(make_step_from_maps(student, teacher)).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("size", "pairs"), [((2, 2), 6), ((3, 3), 20), ((2, 5), 21), ((4, 1), 3)])
def test_number_of_pairs(size: tuple[int, int], pairs: int) -> None:
    """One position is orthogonal to all others and so differs from each of its neighbors, of which there are at most 8."""
    student = torch.zeros(1, 2, *size)
    student[:, 0] = 1
    center = size[0] // 2, size[1] // 2
    student[0, :, center[0], center[1]] = torch.tensor([0.0, 1.0])
    around = [range(max(0, m - 1), min(s, m + 2)) for m, s in zip(center, size, strict=True)]
    neighbors = len(around[0]) * len(around[1]) - 1
    value = Local()(make_step_from_maps(student, torch.ones(1, 1, *size)))
    assert value.item() == pytest.approx(neighbors / pairs)


def test_single_position_has_no_pairs() -> None:
    student = torch.randn(2, 3, 1, 1, requires_grad=True)
    value = Local()(make_step_from_maps(student, torch.randn(2, 4, 1, 1)))
    assert value == 0
    assert (torch.autograd.grad(value, student)[0] == 0).all()


def test_missing_feature_is_refused() -> None:
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has kd_logits"):
        Local().setup({"encoder": FeatureInfo(3, 8)}, {"kd_logits": FeatureInfo(3, 8)})
