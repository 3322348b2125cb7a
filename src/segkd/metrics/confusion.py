"""Scores of a dataset from one integer confusion matrix.

No score is averaged over images or batches: the matrix is summed, in int64, over all images of all processes, and scores
are computed from it once. (Cityscapes' scripts do the same.)
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
        num_classes: K, the classes of the dataset.
        count_void: add void as a last row and column. Unlabeled pixels then count (a class predicted on void is a false
            positive), and a network that was trained with void as a class may predict it.
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

        Where void is ignored, the prediction is the greatest of the K classes; where it is counted, of all outputs.

        Raises:
            ValueError: a label is neither a class nor IGNORE_INDEX, or there are more outputs than columns.
        """
        outputs = logits if self.count_void else logits[:, : self.num_classes]
        if outputs.shape[1] > self.size:
            raise ValueError(f"{outputs.shape[1]} outputs for {self.size} columns of the confusion matrix")
        void = target == IGNORE_INDEX
        # A label out of range would be counted as another class, in the next row.
        if (~void & ((target < 0) | (target >= self.num_classes))).any():
            raise ValueError(f"a label is outside 0..{self.num_classes - 1} and not {IGNORE_INDEX}")
        predicted = outputs.max(1).indices  # 30 times as fast as argmax on a CPU
        target = torch.where(void, self.num_classes, target)
        if not self.count_void:
            predicted, target = predicted[~void], target[~void]
        self.counts += count_confusions(target, predicted, self.size)

    def compute(self) -> Tensor:
        """Return the matrix."""
        return self.counts


def count_confusions(target: Tensor, predicted: Tensor, size: int) -> Tensor:
    """Count how often each true class (rows) is predicted as each class (columns), size × size int64."""
    return torch.bincount((target * size + predicted).flatten(), minlength=size**2).view(size, size)


class Scores(NamedTuple):
    """Fractions in 0..1; NaN for a class that is neither in the labels nor predicted."""

    miou: float
    class_accuracy: float
    pixel_accuracy: float
    iou: list[float]

    @classmethod
    def from_confusion_matrix(cls, matrix: Tensor, num_classes: int) -> Scores:
        """Compute the scores of a confusion matrix (rows are true classes), means over the first `num_classes`.

        IoU = TP / (TP + FP + FN); class accuracy = mean of TP / (TP + FN) over the classes in the labels.
        """
        counts = matrix.cpu().double()
        hits, labeled, predicted = counts.diag(), counts.sum(1), counts.sum(0)
        iou = (hits / (labeled + predicted - hits))[:num_classes]
        recall = (hits / labeled)[:num_classes]
        return cls(iou.nanmean().item(), recall.nanmean().item(), (hits.sum() / counts.sum()).item(), iou.tolist())

    def to_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return the scores for a JSON file, with null for NaN, which JSON lacks."""
        means = {"miou": self.miou, "class_accuracy": self.class_accuracy, "pixel_accuracy": self.pixel_accuracy}
        iou = {name: nan_to_none(value) for name, value in zip(classes, self.iou, strict=True)}
        return {**{key: nan_to_none(value) for key, value in means.items()}, "iou": iou}


def constant_class_miou(matrix: Tensor) -> float:
    """Return the mIoU of always predicting the most frequent class, from any confusion matrix of the same pixels."""
    labeled = matrix.sum(1).double()
    present = int((labeled > 0).sum())
    return (labeled.max() / labeled.sum() / present).item() if present else float("nan")


def nan_to_none(value: float) -> float | None:
    """Return the number, or None for NaN, which JSON lacks."""
    return None if value != value else value
