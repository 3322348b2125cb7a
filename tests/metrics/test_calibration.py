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


def compute_reference(logits: Tensor, target: Tensor, bins: int = BINS) -> tuple[float, float, float]:
    """Compute ECE, NLL and Brier score pixel by pixel, in float64."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    nll, brier = [], []
    for logit, label in zip(
        logits.movedim(1, -1).flatten(0, 2).double().numpy(), target.flatten().tolist(), strict=True
    ):
        if label == IGNORE_INDEX:
            continue
        p = np.exp(logit[:CLASSES] - logit[:CLASSES].max())
        p /= p.sum()
        k = int(p.argmax())
        nll.append(-math.log(p[label]))
        brier.append(sum((p[j] - (j == label)) ** 2 for j in range(CLASSES)))
        bins_of_p = [b for b in range(bins) if b / bins < p[k] <= (b + 1) / bins]
        members[bins_of_p[0]].append((p[k], k == label))
    n = len(nll)
    gaps = [len(m) / n * abs(np.mean([c for c, _ in m]) - np.mean([r for _, r in m])) for m in members if m]
    return float(sum(gaps)), float(np.mean(nll)), float(np.mean(brier))


def compute_calibration(logits: Tensor, target: Tensor, bins: int = BINS) -> tuple[float, ...]:
    metric = Calibration(CLASSES, bins)
    for i in range(len(logits)):
        metric.update(logits[i : i + 1], target[i : i + 1])
    return tuple(metric.compute())


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """Logits that are mostly confident and right, with an output beyond the classes, and labels with a tenth of void."""
    target = torch.randint(0, CLASSES, (3, 12, 15))
    logits = 2 * torch.randn(3, CLASSES + 1, 12, 15)
    logits[:, :CLASSES] += 2 * torch.nn.functional.one_hot(target, CLASSES).movedim(-1, 1)
    target[torch.rand(target.shape) < 0.1] = IGNORE_INDEX
    return logits, target


def test_scores_equal_the_definitions(maps: tuple[Tensor, Tensor]) -> None:
    expected = compute_reference(*maps)
    assert compute_calibration(*maps) == pytest.approx(expected, rel=1e-5)
    assert min(expected) > 0.02

    logits, target = maps
    filled = torch.where(target == IGNORE_INDEX, 0, target)
    for fault in (
        compute_calibration(2 * logits, target),
        compute_calibration(logits.flip(1), target),
        compute_calibration(logits, filled),
    ):
        for value, correct in zip(fault, expected, strict=True):
            assert value != pytest.approx(correct, rel=1e-3)
    assert compute_calibration(logits, target, BINS - 1)[0] != pytest.approx(expected[0], rel=1e-3)


def test_calibration_by_hand() -> None:
    """Two pixels with probability 3/4 of class 0, one of them right; a third is void."""
    metric = Calibration(2, bins=4)
    metric.update(torch.tensor([[[[math.log(3)] * 3], [[0.0] * 3]]]), torch.tensor([[[0, 1, IGNORE_INDEX]]]))
    ece, nll, brier = metric.compute()
    assert ece == pytest.approx(0.25)
    assert nll == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert brier == pytest.approx((2 * 0.25**2 + 2 * 0.75**2) / 2)


def test_confidence_of_one_has_a_bin() -> None:
    metric = Calibration(2)
    metric.update(torch.tensor([[[[100.0]], [[-100.0]]]]), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert tuple(metric.compute()) == pytest.approx((0, 0, 0), abs=1e-12)
    metric.reset()
    metric.update(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1), IGNORE_INDEX))
    assert all(math.isnan(value) for value in metric.compute())


def test_agreement_by_hand() -> None:
    """Student 0 1 0 1, teacher 0 0 1 1, target 0 0 0 0, and a void pixel on which both predict 1."""
    student, teacher = (
        torch.tensor([[[[3.0 * (k == c) for c in classes]] for k in range(2)]])
        for classes in ((0, 1, 0, 1, 1), (0, 0, 1, 1, 1))
    )
    metric = Agreement(2)
    metric.update(student, teacher, torch.tensor([[[0, 0, 0, 0, IGNORE_INDEX]]]))
    scores = metric.compute()
    confidence = math.exp(3) / (1 + math.exp(3))
    assert scores.agreement == pytest.approx(3 / 5)
    assert scores.divergence == pytest.approx(2 / 5 * 3 * (2 * confidence - 1), rel=1e-5)
    assert scores[2:] == (1 / 4,) * 4

    same = Agreement(2)
    same.update(teacher, teacher, torch.zeros(1, 1, 5, dtype=torch.int64))
    assert same.compute()[:2] == pytest.approx((1, 0), abs=1e-7)
    assert same.compute()[2:] == pytest.approx((2 / 5, 0, 0, 3 / 5))
