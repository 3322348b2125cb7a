"""Scores of contours, which the IoU of large regions hardly shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from segkd.metrics.confusion import count_confusions
from segkd.types import IGNORE_INDEX


def boundary_band(labels: Tensor, width: int, edges: bool) -> Tensor:
    """Where another label lies within `width` pixels, diagonals included: B H W bool of B H W labels.

    One pass serves all classes: the square around a pixel is of one class where its least and greatest labels are equal.

    Args:
        edges: whether what lies outside the image is another label.
    """
    maps = labels[:, None].float()

    def greatest(values: Tensor) -> Tensor:
        pad, side = width, 2 * width + 1
        values = F.pad(values, (pad,) * 4, value=math.inf if edges else -math.inf)
        return F.max_pool2d(F.max_pool2d(values, (side, 1), 1), (1, side), 1)

    return ((greatest(maps) != maps) | (greatest(-maps) != -maps))[:, 0]


def boundary_width(size: tuple[int, int], share: float = 0.02) -> int:
    """Cheng et al.'s width: a fiftieth of the image's diagonal, 1 pixel at least."""
    return max(1, round(share * math.hypot(*size)))


class BoundaryIoU(Metric):
    """The IoU of contour bands, by class, summed over images: Cheng et al., *Boundary IoU*, CVPR 2021, arXiv 2103.16562.

    Of each class only the pixels of its mask within d of the mask's outline count, in the labels and in the prediction each by its own
    outline: |Gd ∩ Pd| / |Gd ∪ Pd|. The image's edge is an outline, as in their code. Unlabelled pixels belong to no mask, in the
    prediction neither.

    Args:
        num_classes: K.
        width: d in pixels; by default `boundary_width` of each image.
    """

    full_state_update = False
    both: Tensor
    either: Tensor

    def __init__(self, num_classes: int, width: int | None = None) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        for name in ("both", "either"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count a batch of classes, B H W; what is no class is void."""
        width = self.width or boundary_width((target.shape[-2], target.shape[-1]))
        void = target == IGNORE_INDEX
        truth, said = (torch.where(void, self.num_classes, labels) for labels in (target, predicted))
        outline, drawn = boundary_band(truth, width, True), boundary_band(said, width, True)

        def pixels(labels: Tensor, where: Tensor) -> Tensor:
            return torch.bincount(labels[where], minlength=self.num_classes + 1)[: self.num_classes]

        both = pixels(truth, outline & drawn & (truth == said))
        self.both += both
        self.either += pixels(truth, outline) + pixels(said, drawn) - both

    def compute(self) -> Tensor:
        """K fractions; NaN for a class that is in neither."""
        return self.both.double() / self.either


class TrimapConfusion(Metric):
    """Confusion matrices of the labelled pixels near a change of label: Kohli et al., *Robust Higher Order Potentials*, IJCV 2009.

    Near is within w pixels of a pixel with another label, void among them, for each width w; the image's edge is no change.

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
            near = boundary_band(target, width, False) & (target != IGNORE_INDEX)
            matrix += count_confusions(target[near], predicted[near], self.size)

    def compute(self) -> Tensor:
        """The matrices, one a width."""
        return self.counts
