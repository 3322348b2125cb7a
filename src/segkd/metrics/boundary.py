"""Metrics of boundaries, which hardly affect the IoU of large regions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from segkd.metrics.confusion import count_confusions
from segkd.types import IGNORE_INDEX


def find_boundary_band(labels: Tensor, width: int, include_edges: bool) -> Tensor:
    """Return where another label lies within `width` pixels, diagonals included, B H W bool.

    One pass serves all classes: the square around a pixel has one class where its least and greatest labels are equal.

    Args:
        labels: B H W.
        width: in pixels.
        include_edges: treat what lies outside the image as another label.
    """
    maps = labels[:, None].float()

    def compute_max(values: Tensor) -> Tensor:
        side = 2 * width + 1
        values = F.pad(values, (width,) * 4, value=math.inf if include_edges else -math.inf)
        return F.max_pool2d(F.max_pool2d(values, (side, 1), 1), (1, side), 1)

    return ((compute_max(maps) != maps) | (compute_max(-maps) != -maps))[:, 0]


def compute_boundary_width(size: tuple[int, int], fraction: float = 0.02) -> int:
    """Return Cheng et al.'s width: this fraction of the image's diagonal, at least 1 pixel."""
    return max(1, round(fraction * math.hypot(*size)))


class BoundaryIoU(Metric):
    """IoU of boundary bands, by class, summed over images: Cheng et al., *Boundary IoU*, CVPR 2021, arXiv 2103.16562.

    For each class only the pixels of its mask within d of the mask's outline count, in the labels and in the prediction each
    with its own outline: |Gd ∩ Pd| / |Gd ∪ Pd|. The image's edge is an outline, as in their code. Void pixels belong to no
    mask, in the prediction neither.

    Args:
        num_classes: K.
        width: d in pixels; by default `compute_boundary_width` of each image.
    """

    full_state_update = False
    intersection: Tensor
    union: Tensor

    def __init__(self, num_classes: int, width: int | None = None) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        for name in ("intersection", "union"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count a batch of classes, B H W; values that are no class are void."""
        width = self.width or compute_boundary_width((target.shape[-2], target.shape[-1]))
        void = target == IGNORE_INDEX
        target, predicted = (torch.where(void, self.num_classes, labels) for labels in (target, predicted))
        target_band, predicted_band = (find_boundary_band(labels, width, True) for labels in (target, predicted))
        intersection = self._count_pixels(target[target_band & predicted_band & (target == predicted)])
        self.intersection += intersection
        self.union += self._count_pixels(target[target_band]) + self._count_pixels(predicted[predicted_band])
        self.union -= intersection

    def compute(self) -> Tensor:
        """Return K fractions; NaN for a class that occurs in neither labels nor predictions."""
        return self.intersection.double() / self.union

    def _count_pixels(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels, minlength=self.num_classes + 1)[: self.num_classes]


class TrimapConfusion(Metric):
    """Confusion matrices of the labeled pixels near a label boundary: Kohli et al., *Robust Higher Order Potentials*, IJCV 2009.

    A pixel is near if another label, void included, lies within w pixels, for each width w; the image's edge is no boundary.

    Args:
        size: rows and columns of the matrices.
        widths: in pixels.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, size: int, widths: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.size, self.widths = size, tuple(widths)
        self.add_state("counts", torch.zeros(len(self.widths), size, size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count a batch of classes, B H W."""
        for matrix, width in zip(self.counts, self.widths, strict=True):
            near = find_boundary_band(target, width, False) & (target != IGNORE_INDEX)
            matrix += count_confusions(target[near], predicted[near], self.size)

    def compute(self) -> Tensor:
        """Return the matrices, one for each width."""
        return self.counts
