"""Local pair-wise distillation by hand; the formula at large is in test_references."""

from __future__ import annotations

import pytest
import torch

from segkd.errors import UserError
from segkd.losses.local import Local
from segkd.types import FeatureInfo
from tests.helpers.steps import make_step_from_maps


def test_by_hand() -> None:
    """A row of four places: the teacher's are all alike, the student's last is at right angles to the rest."""
    student = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 5.0]]).view(1, 2, 1, 4)
    teacher = torch.ones(1, 1, 1, 4)
    # Of three pairs of neighbours the last differs by 1; that of the first and the last place is not compared.
    assert Local()(make_step_from_maps(student, teacher)).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("size", "pairs"), [((2, 2), 6), ((3, 3), 20), ((2, 5), 21), ((4, 1), 3)])
def test_pairs_of_a_map(size: tuple[int, int], pairs: int) -> None:
    """One place at right angles to all others differs from each of its neighbours, at most 8: the rest of the mean is pairs."""
    student = torch.zeros(1, 2, *size)
    student[:, 0] = 1
    middle = size[0] // 2, size[1] // 2
    student[0, :, middle[0], middle[1]] = torch.tensor([0.0, 1.0])
    around = [range(max(0, m - 1), min(s, m + 2)) for m, s in zip(middle, size, strict=True)]
    neighbours = len(around[0]) * len(around[1]) - 1
    value = Local()(make_step_from_maps(student, torch.ones(1, 1, *size)))
    assert value.item() == pytest.approx(neighbours / pairs)


def test_one_place_has_no_neighbour() -> None:
    student = torch.randn(2, 3, 1, 1, requires_grad=True)
    value = Local()(make_step_from_maps(student, torch.randn(2, 4, 1, 1)))
    assert value == 0
    assert (torch.autograd.grad(value, student)[0] == 0).all()


def test_unknown_taps_are_refused() -> None:
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has scores"):
        Local().setup({"encoder": FeatureInfo(3, 8)}, {"kd_logits": FeatureInfo(3, 8)})
