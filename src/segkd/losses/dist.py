"""DIST: the student ranks as the teacher does, classes in a pixel and pixels in a class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean, global_sum
from segkd.losses.features import align_features, check_same_num_classes
from segkd.types import FeatureInfos, Step

MIN_NORM = 1e-12
"""Of a sum of squares: below it probabilities differ by rounding alone."""


class Dist(Loss):
    """Pearson's correlation of the two networks' class probabilities, over the classes and over the places.

        L = inter · mean over pixels of (1 − ρ over classes) + intra · mean over classes of (1 − ρ over the batch's pixels)

    Huang et al., 2022 (arXiv 2205.10536); a pixel is a sample, as in their code for segmentation. Maps are B K h w. The
    teacher's is its logits, resized to the student's map. Padded places do not count. What does not vary correlates with
    nothing: ρ is 0 there, without a gradient. Over several processes the pixels of a class are those of all of them.

    Args:
        weight: 1, as in their code (hunto/DIST_KD, segmentation/train_kd.py), which has no temperature.
        inter: of the classes in a pixel; the paper's β, 1 as there.
        intra: of the pixels in a class; the paper's γ, 1 as there.
        feature: the student's class scores that are compared.
    """

    def __init__(self, weight: float = 1.0, inter: float = 1.0, intra: float = 1.0, feature: str = "kd_logits") -> None:
        super().__init__(weight)
        self.inter, self.intra = inter, intra
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        check_same_num_classes(student, teacher, self.feature)

    def forward(self, step: Step) -> Tensor:
        ours, theirs, counted = align_features(step, self.feature, "kd_logits")
        student, teacher = ours.softmax(1), theirs.softmax(1)
        weight = counted[:, None].to(student)
        pixels = global_sum(weight.sum())

        def over_classes(maps: Tensor) -> Tensor:
            return maps.sum(1, keepdim=True)

        def over_pixels(maps: Tensor) -> Tensor:
            return global_sum((maps * weight).sum((0, 2, 3), keepdim=True))

        inter = 1 - pearson_correlation(student, teacher, over_classes, student.shape[1])
        intra = 1 - pearson_correlation(student, teacher, over_pixels, pixels.clamp(min=1))
        return self.inter * global_mean((inter * weight).sum(), weight.sum()) + self.intra * intra.mean() * (pixels > 0)


def pearson_correlation(a: Tensor, b: Tensor, total: Callable[[Tensor], Tensor], count: Tensor | int) -> Tensor:
    """Pearson's ρ of two variables whose `count` values `total` sums up."""
    # Deviations sum to zero, so no gradient goes through the means, and sums over processes need not be nested.
    a, b = (maps - (total(maps) / count).detach() for maps in (a, b))
    squares = total(a.square()), total(b.square())
    product = (squares[0] * squares[1]).masked_fill((squares[0] < MIN_NORM) | (squares[1] < MIN_NORM), float("inf"))
    return (total(a * b) / product.sqrt()).clamp(max=1)
