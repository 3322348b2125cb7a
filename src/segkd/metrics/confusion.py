"""Scores of a whole data set from one integer confusion matrix.

No score is ever averaged over images or batches: the matrix is summed, in int64, over all images of all processes, and
scores are computed from it once. (Cityscapes' scripts do the same.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from segkd.types import IGNORE_INDEX


class ConfusionMatrix(Metric):
    """Counts of pixels by true class (rows) and predicted class (columns), K × K int64.

    Args:
        num_classes: K, the data set's classes.
        count_void: add void as a last row and column. Unlabelled pixels then stay in (a class predicted on void is a
            false positive), and a network that was trained to say void may say it.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, count_void: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.count_void = count_void
        self.size = num_classes + count_void
        self.add_state("counts", torch.zeros(self.size, self.size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits B K H W at the size of the target, B H W int64 with IGNORE_INDEX.

        Where void is ignored, the K classes compete; where it is counted, all outputs of the network do.

        Raises:
            ValueError: a label is neither a class nor IGNORE_INDEX, or more outputs compete than the matrix has columns.
        """
        competing = logits if self.count_void else logits[:, : self.num_classes]
        if competing.shape[1] > self.size:
            raise ValueError(f"{competing.shape[1]} outputs compete for {self.size} columns")
        void = target == IGNORE_INDEX
        # A label out of range would be counted as another class, in the next row.
        if (~void & ((target < 0) | (target >= self.num_classes))).any():
            raise ValueError(f"a label lies outside 0..{self.num_classes - 1} and is not {IGNORE_INDEX}")
        predicted = competing.max(1).indices  # 30 times as fast as argmax on a CPU
        truth = torch.where(void, self.num_classes, target)
        if not self.count_void:
            predicted, truth = predicted[~void], truth[~void]
        self.counts += count_confusions(truth, predicted, self.size)

    def compute(self) -> Tensor:
        """The matrix."""
        return self.counts


def count_confusions(truth: Tensor, predicted: Tensor, size: int) -> Tensor:
    """How often each true class (rows) is taken for each class (columns), size × size int64."""
    return torch.bincount((truth * size + predicted).flatten(), minlength=size**2).view(size, size)


class Scores(NamedTuple):
    """Fractions in 0..1; NaN for a class that is neither in the labels nor predicted."""

    miou: float
    class_accuracy: float
    pixel_accuracy: float
    iou: list[float]

    @classmethod
    def of(cls, matrix: Tensor, num_classes: int) -> Scores:
        """The scores of a confusion matrix (rows = truth), means over the first `num_classes`.

        IoU = TP / (TP + FP + FN); class accuracy = mean of TP / (TP + FN) over the classes in the labels.
        """
        counts = matrix.cpu().double()
        hits, truth, predicted = counts.diag(), counts.sum(1), counts.sum(0)
        iou = (hits / (truth + predicted - hits))[:num_classes]
        recall = (hits / truth)[:num_classes]
        return cls(iou.nanmean().item(), recall.nanmean().item(), (hits.sum() / counts.sum()).item(), iou.tolist())

    def facts(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """For a JSON file: NaN, which JSON lacks, becomes null."""
        plain = {"miou": self.miou, "class_accuracy": self.class_accuracy, "pixel_accuracy": self.pixel_accuracy}
        values = {key: nan_to_none(value) for key, value in plain.items()}
        return {**values, "iou": {name: nan_to_none(value) for name, value in zip(classes, self.iou, strict=True)}}


def constant_class_miou(matrix: Tensor) -> float:
    """The mIoU of always saying the commonest class, from a confusion matrix of anything on the same pixels."""
    truth = matrix.sum(1).double()
    present = int((truth > 0).sum())
    return (truth.max() / truth.sum() / present).item() if present else float("nan")


def nan_to_none(value: float) -> float | None:
    """A number as JSON knows it: NaN becomes null."""
    return None if value != value else value
