"""The weighted sum of the losses, and its errors."""

from __future__ import annotations

import pytest
import torch

from segkd.check_part.steps import make_step
from segkd.errors import UserError
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.pairwise import Pairwise
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.weighted_sum import LossSum
from segkd.types import FeatureInfo


def test_total_is_weighted_and_terms_are_raw() -> None:
    step = make_step()
    losses = {"labels": CrossEntropy(weight=2.0), "teacher": Pixelwise(weight=0.5)}
    total, terms = LossSum(losses)(step)
    assert list(terms) == ["labels", "teacher"]
    assert terms["labels"] == CrossEntropy()(step)
    assert terms["teacher"] == Pixelwise()(step)
    torch.testing.assert_close(total, 2 * terms["labels"] + 0.5 * terms["teacher"])


def test_errors_name_the_loss() -> None:
    losses = LossSum({"labels": CrossEntropy(), "similarity": Pairwise()})
    features = {"kd_logits": FeatureInfo(3, 8)}
    with pytest.raises(UserError, match="loss 'similarity' needs a teacher"):
        losses.setup(features, None)
    with pytest.raises(UserError, match="loss 'similarity': the student has no feature 'encoder'"):
        losses.setup(features, features)
    LossSum({"labels": CrossEntropy()}).setup(features, None)
