"""The weighted sum of the losses, and its complaints."""

from __future__ import annotations

import pytest
import torch

from conftest import step_of
from segkd.errors import UserError
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.pairwise import Pairwise
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.total import LossSum
from segkd.types import Tap


def test_total_is_weighted_and_the_terms_are_raw() -> None:
    step = step_of()
    parts = {"labels": CrossEntropy(weight=2.0), "teacher": Pixelwise(weight=0.5)}
    total, terms = LossSum(parts)(step)
    assert list(terms) == ["labels", "teacher"]
    assert terms["labels"] == CrossEntropy()(step)
    assert terms["teacher"] == Pixelwise()(step)
    torch.testing.assert_close(total, 2 * terms["labels"] + 0.5 * terms["teacher"])


def test_faults_say_which_loss() -> None:
    losses = LossSum({"labels": CrossEntropy(), "alike": Pairwise()})
    taps = {"scores": Tap(3, 8)}
    with pytest.raises(UserError, match="loss 'alike' needs a teacher"):
        losses.connect(taps, None)
    with pytest.raises(UserError, match="loss 'alike': the student has no tap 'encoder'"):
        losses.connect(taps, taps)
    LossSum({"labels": CrossEntropy()}).connect(taps, None)
