"""Calibration and agreement against NumPy, pixel by pixel, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.metrics.agreement import Agreement
from segkd.metrics.calibration import Calibration
from segkd.types import IGNORE_INDEX

CLASSES, BINS = 4, 15


def slowly(logits: Tensor, target: Tensor, bins: int = BINS) -> tuple[float, float, float]:
    """ECE, NLL and Brier of one pixel after the other, in float64."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    nll, brier = [], []
    for scores, label in zip(
        logits.movedim(1, -1).flatten(0, 2).double().numpy(), target.flatten().tolist(), strict=True
    ):
        if label == IGNORE_INDEX:
            continue
        p = np.exp(scores[:CLASSES] - scores[:CLASSES].max())
        p /= p.sum()
        k = int(p.argmax())
        nll.append(-math.log(p[label]))
        brier.append(sum((p[j] - (j == label)) ** 2 for j in range(CLASSES)))
        fitting = [b for b in range(bins) if b / bins < p[k] <= (b + 1) / bins]
        members[fitting[0]].append((p[k], k == label))
    n = len(nll)
    gaps = [len(m) / n * abs(np.mean([c for c, _ in m]) - np.mean([r for _, r in m])) for m in members if m]
    return float(sum(gaps)), float(np.mean(nll)), float(np.mean(brier))


def ours(logits: Tensor, target: Tensor, bins: int = BINS) -> tuple[float, ...]:
    score = Calibration(CLASSES, bins)
    for i in range(len(logits)):
        score.update(logits[i : i + 1], target[i : i + 1])
    return tuple(score.compute())


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """Sure and right more often than not, an output beyond the classes, and a tenth of void."""
    target = torch.randint(0, CLASSES, (3, 12, 15))
    logits = 2 * torch.randn(3, CLASSES + 1, 12, 15)
    logits[:, :CLASSES] += 2 * torch.nn.functional.one_hot(target, CLASSES).movedim(-1, 1)
    target[torch.rand(target.shape) < 0.1] = IGNORE_INDEX
    return logits, target


def test_agrees_with_the_definitions(maps: tuple[Tensor, Tensor]) -> None:
    expected = slowly(*maps)
    assert ours(*maps) == pytest.approx(expected, rel=1e-5)
    assert min(expected) > 0.02

    logits, target = maps
    filled = torch.where(target == IGNORE_INDEX, 0, target)
    for fault in (ours(2 * logits, target), ours(logits.flip(1), target), ours(logits, filled)):
        for got, right in zip(fault, expected, strict=True):
            assert got != pytest.approx(right, rel=1e-3)
    assert ours(logits, target, BINS - 1)[0] != pytest.approx(expected[0], rel=1e-3)


def test_calibration_by_hand() -> None:
    """Two pixels, both 3 to 1 for class 0, and one of them right; a third is void."""
    score = Calibration(2, bins=4)
    score.update(torch.tensor([[[[math.log(3)] * 3], [[0.0] * 3]]]), torch.tensor([[[0, 1, IGNORE_INDEX]]]))
    ece, nll, brier = score.compute()
    assert ece == pytest.approx(0.25)
    assert nll == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert brier == pytest.approx((2 * 0.25**2 + 2 * 0.75**2) / 2)


def test_certainty_of_one_has_a_bin() -> None:
    score = Calibration(2)
    score.update(torch.tensor([[[[100.0]], [[-100.0]]]]), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert tuple(score.compute()) == pytest.approx((0, 0, 0), abs=1e-12)
    score.reset()
    score.update(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1), IGNORE_INDEX))
    assert all(math.isnan(value) for value in score.compute())


def test_agreement_by_hand() -> None:
    """Student 0 1 0 1, teacher 0 0 1 1, truth 0 0 0 0, and a pixel of void on which both say 1."""
    student, teacher = (
        torch.tensor([[[[3.0 * (k == c) for c in said]] for k in range(2)]])
        for said in ((0, 1, 0, 1, 1), (0, 0, 1, 1, 1))
    )
    score = Agreement(2)
    score.update(student, teacher, torch.tensor([[[0, 0, 0, 0, IGNORE_INDEX]]]))
    agreed = score.compute()
    sure = math.exp(3) / (1 + math.exp(3))
    assert agreed.agreement == pytest.approx(3 / 5)
    assert agreed.divergence == pytest.approx(2 / 5 * 3 * (2 * sure - 1), rel=1e-5)
    assert agreed[2:] == (1 / 4,) * 4

    same = Agreement(2)
    same.update(teacher, teacher, torch.zeros(1, 1, 5, dtype=torch.int64))
    assert same.compute()[:2] == pytest.approx((1, 0), abs=1e-7)
    assert same.compute()[2:] == pytest.approx((2 / 5, 0, 0, 3 / 5))
