"""Boundary IoU and trimaps against the words of their papers, written with OpenCV, and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.metrics import Scores
from segkd.metrics import boundary as metric
from segkd.metrics.boundary import BoundaryIoU, TrimapConfusion, boundary_band, boundary_width
from segkd.types import IGNORE_INDEX

CLASSES = 5


def scene(seed: int, size: tuple[int, int] = (48, 64)) -> tuple[Tensor, Tensor]:
    """Discs of classes 0–3 and void, and a prediction that is off by a few pixels and sometimes by class; 4 is nowhere."""
    rng = np.random.default_rng(seed)
    target, predicted = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for _ in range(8):
        at, radius = rng.integers(0, size[::-1], 2), int(rng.integers(3, 14))
        label = int(rng.choice([0, 1, 2, 3, IGNORE_INDEX]))
        cv2.circle(target, at.tolist(), radius, label, -1)
        said = label if label < CLASSES and rng.random() < 0.8 else 1
        cv2.circle(predicted, (at + rng.integers(-2, 3, 2)).tolist(), radius, said, -1)
    return torch.from_numpy(predicted).long()[None], torch.from_numpy(target).long()[None]


def cheng(pairs: list[tuple[Tensor, Tensor]], width: int, padding: int = 0) -> list[float]:
    """Class by class: mask minus eroded mask, with what is outside of the image counted as outside of the mask."""

    def inner(mask: np.ndarray) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=padding)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        return mask & (eroded == 0)

    both, either = np.zeros(CLASSES), np.zeros(CLASSES)
    for predicted, target in pairs:
        labelled = target[0].numpy() != IGNORE_INDEX
        for k in range(CLASSES):
            truth, said = (inner((labels[0].numpy() == k) & labelled) for labels in (target, predicted))
            both[k] += (truth & said).sum()
            either[k] += (truth | said).sum()
    with np.errstate(invalid="ignore"):
        return (both / either).tolist()  # type: ignore[no-any-return]


def ours(pairs: list[tuple[Tensor, Tensor]], width: int) -> list[float]:
    score = BoundaryIoU(CLASSES, width)
    for predicted, target in pairs:
        score.update(predicted, target)
    return score.compute().tolist()  # type: ignore[no-any-return]


PAIRS = [scene(seed) for seed in range(6)]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_boundary_iou_is_cheng_s(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cheng(PAIRS, width)
    assert ours(PAIRS, width) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert expected[4] != expected[4], "what is nowhere has no score"
    assert 0.1 < np.nanmean(expected) < 0.9

    def differs() -> bool:
        return ours(PAIRS, width) != pytest.approx(expected, abs=1e-6, nan_ok=True)

    monkeypatch.setattr(metric, "boundary_band", lambda labels, w, edges: boundary_band(labels, w + 1, edges))
    assert differs(), "a wider band"
    monkeypatch.setattr(metric, "boundary_band", lambda labels, w, _: boundary_band(labels, w, False))
    assert differs(), "an image's edge that is no outline"
    monkeypatch.setattr(metric, "boundary_band", boundary_band)
    monkeypatch.setattr(metric, "IGNORE_INDEX", -1)
    assert differs(), "a prediction on void that is held against the network"


def test_boundary_iou_by_hand() -> None:
    """A 6×6 square in 8×8; found one pixel to the left. Of its outline's 20 pixels 10 + 2 are those of the other's."""
    target, predicted = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    target[0, 1:7, 1:7] = 1
    predicted[0, 1:7, 0:6] = 1
    score = BoundaryIoU(2, 1)
    score.update(predicted, target)
    assert score.compute()[1].item() == 10 / 30
    score.update(target, target)
    assert score.compute()[1].item() == (10 + 20) / (30 + 20), "sums over images, no mean of images"


def test_the_width_is_a_fiftieth_of_the_diagonal() -> None:
    assert boundary_width((360, 480)) == 12
    assert boundary_width((1024, 2048)) == 46
    assert boundary_width((5, 5)) == 1


def test_trimaps_by_hand() -> None:
    """0 0 0 0 1 1 1 void void void: within one pixel of a change lie 0, 1, 1; within two 0 0, 1 1 1."""
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, *[IGNORE_INDEX] * 3]]])
    predicted = torch.tensor([[[1, 0, 0, 1, 1, 1, 0, 0, 0, 0]]])
    score = TrimapConfusion(2, (1, 2, 4))
    score.update(predicted, target)
    assert score.compute().tolist() == [[[0, 1], [1, 1]], [[1, 1], [1, 2]], [[2, 2], [1, 2]]]


def test_wide_trimaps_are_the_whole_image() -> None:
    predicted, target = PAIRS[0]
    score = TrimapConfusion(CLASSES, (1, 200))
    score.update(predicted, target)
    narrow, wide = score.compute()
    labelled = target != IGNORE_INDEX
    assert wide.sum() == labelled.sum() > narrow.sum() > 0
    assert Scores.from_confusion_matrix(wide, CLASSES).pixel_accuracy == pytest.approx(
        (predicted == target)[labelled].double().mean().item()
    )
    assert Scores.from_confusion_matrix(narrow, CLASSES).miou < Scores.from_confusion_matrix(wide, CLASSES).miou
