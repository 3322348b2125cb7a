"""Boundary IoU and trimaps against the definitions of their papers, in OpenCV, and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.metrics import Scores, boundary
from segkd.metrics.boundary import BoundaryIoU, TrimapConfusion, compute_boundary_width, find_boundary_band
from segkd.types import IGNORE_INDEX

CLASSES = 5


def draw_scene(seed: int, size: tuple[int, int] = (48, 64)) -> tuple[Tensor, Tensor]:
    """Draw discs of classes 0–3 and void, and a prediction that is off by a few pixels or by class; class 4 is absent."""
    rng = np.random.default_rng(seed)
    target, predicted = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for _ in range(8):
        at, radius = rng.integers(0, size[::-1], 2), int(rng.integers(3, 14))
        label = int(rng.choice([0, 1, 2, 3, IGNORE_INDEX]))
        cv2.circle(target, at.tolist(), radius, label, -1)
        predicted_label = label if label < CLASSES and rng.random() < 0.8 else 1
        cv2.circle(predicted, (at + rng.integers(-2, 3, 2)).tolist(), radius, predicted_label, -1)
    return torch.from_numpy(predicted).long()[None], torch.from_numpy(target).long()[None]


def compute_reference(pairs: list[tuple[Tensor, Tensor]], width: int, padding: int = 0) -> list[float]:
    """Compute it class by class: mask minus eroded mask, with everything outside of the image outside of the mask."""

    def compute_band(mask: np.ndarray) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=padding)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        return mask & (eroded == 0)

    intersection, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for predicted, target in pairs:
        labeled = target[0].numpy() != IGNORE_INDEX
        for k in range(CLASSES):
            target_band, predicted_band = (
                compute_band((labels[0].numpy() == k) & labeled) for labels in (target, predicted)
            )
            intersection[k] += (target_band & predicted_band).sum()
            union[k] += (target_band | predicted_band).sum()
    with np.errstate(invalid="ignore"):
        return (intersection / union).tolist()  # type: ignore[no-any-return]


def compute_boundary_iou(pairs: list[tuple[Tensor, Tensor]], width: int) -> list[float]:
    metric = BoundaryIoU(CLASSES, width)
    for predicted, target in pairs:
        metric.update(predicted, target)
    return metric.compute().tolist()  # type: ignore[no-any-return]


PAIRS = [draw_scene(seed) for seed in range(6)]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_boundary_iou_equals_the_definition(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compute_reference(PAIRS, width)
    assert compute_boundary_iou(PAIRS, width) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert expected[4] != expected[4], "an absent class has no score"
    assert 0.1 < np.nanmean(expected) < 0.9

    def is_different() -> bool:
        return compute_boundary_iou(PAIRS, width) != pytest.approx(expected, abs=1e-6, nan_ok=True)

    monkeypatch.setattr(
        boundary,
        "find_boundary_band",
        lambda labels, w, include_edges: find_boundary_band(labels, w + 1, include_edges),
    )
    assert is_different(), "a wider band"
    monkeypatch.setattr(boundary, "find_boundary_band", lambda labels, w, _: find_boundary_band(labels, w, False))
    assert is_different(), "an image edge that is no outline"
    monkeypatch.setattr(boundary, "find_boundary_band", find_boundary_band)
    monkeypatch.setattr(boundary, "IGNORE_INDEX", -1)
    assert is_different(), "a prediction on void that counts against the network"


def test_boundary_iou_by_hand() -> None:
    """A 6×6 square in 8×8, predicted one pixel to the left: the outlines of 20 pixels share 10."""
    target, predicted = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    target[0, 1:7, 1:7] = 1
    predicted[0, 1:7, 0:6] = 1
    metric = BoundaryIoU(2, 1)
    metric.update(predicted, target)
    assert metric.compute()[1].item() == 10 / 30
    metric.update(target, target)
    assert metric.compute()[1].item() == (10 + 20) / (30 + 20), "sums over images, not a mean of images"


def test_width_is_two_percent_of_the_diagonal() -> None:
    assert compute_boundary_width((360, 480)) == 12
    assert compute_boundary_width((1024, 2048)) == 46
    assert compute_boundary_width((5, 5)) == 1


def test_trimaps_by_hand() -> None:
    """0 0 0 0 1 1 1 void void void: within one pixel of a boundary are 0, 1, 1; within two 0 0, 1 1 1."""
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, *[IGNORE_INDEX] * 3]]])
    predicted = torch.tensor([[[1, 0, 0, 1, 1, 1, 0, 0, 0, 0]]])
    metric = TrimapConfusion(2, (1, 2, 4))
    metric.update(predicted, target)
    assert metric.compute().tolist() == [[[0, 1], [1, 1]], [[1, 1], [1, 2]], [[2, 2], [1, 2]]]


def test_wide_trimap_is_the_whole_image() -> None:
    predicted, target = PAIRS[0]
    metric = TrimapConfusion(CLASSES, (1, 200))
    metric.update(predicted, target)
    narrow, wide = metric.compute()
    labeled = target != IGNORE_INDEX
    assert wide.sum() == labeled.sum() > narrow.sum() > 0
    assert Scores.from_confusion_matrix(wide, CLASSES).pixel_accuracy == pytest.approx(
        (predicted == target)[labeled].double().mean().item()
    )
    assert Scores.from_confusion_matrix(narrow, CLASSES).miou < Scores.from_confusion_matrix(wide, CLASSES).miou
