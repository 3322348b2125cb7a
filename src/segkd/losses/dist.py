"""DIST: the student's class probabilities correlate with the teacher's, across classes and across pixels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.checks import prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean, global_sum
from segkd.losses.features import align_features, check_same_num_classes
from segkd.types import FeatureInfos, Step

MIN_SUM_OF_SQUARES = 1e-12
"""Below it probabilities differ by rounding alone."""


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None, inter: float = 1.0, intra: float = 1.0
) -> Tensor:
    """Return inter · mean over pixels of (1 − ρ over classes) + intra · mean over classes of (1 − ρ over pixels).

    Huang et al., 2022 (arXiv 2205.10536), with ρ Pearson's correlation of the two networks' class probabilities.

    Args:
        student_logits: B K h w.
        teacher_logits: B K h w.
        valid: the pixels that count, B H W bool at any resolution, by default all.
        inter: factor of the correlation over classes.
        intra: factor of the correlation over the pixels of the batch.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 11, 45, 60), torch.randn(2, 11, 45, 60)
        >>> dist_loss(student, teacher).shape
        torch.Size([])
    """
    student_logits, teacher_logits = prepare_maps(student_logits, teacher_logits, equal="classes")
    student, teacher = student_logits.softmax(1), teacher_logits.softmax(1)
    mask = prepare_valid(valid, student)[:, None].to(student)
    pixels = global_sum(mask.sum())

    def sum_over_classes(maps: Tensor) -> Tensor:
        return maps.sum(1, keepdim=True)

    def sum_over_pixels(maps: Tensor) -> Tensor:
        return global_sum((maps * mask).sum((0, 2, 3), keepdim=True))

    inter_distance = 1 - compute_pearson_correlation(student, teacher, sum_over_classes, student.shape[1])
    intra_distance = 1 - compute_pearson_correlation(student, teacher, sum_over_pixels, pixels.clamp(min=1))
    inter_mean = global_mean((inter_distance * mask).sum(), mask.sum())
    return inter * inter_mean + intra * intra_distance.mean() * (pixels > 0)


def compute_pearson_correlation(
    a: Tensor, b: Tensor, sum_values: Callable[[Tensor], Tensor], count: Tensor | int
) -> Tensor:
    """Return Pearson's ρ of two variables.

    Args:
        a: values of the first variable.
        b: values of the second, of the same shape.
        sum_values: adds up the values of one variable.
        count: how many values it adds up.
    """
    # Deviations sum to zero, so no gradient goes through the means, and sums over processes need not be nested.
    a, b = (values - (sum_values(values) / count).detach() for values in (a, b))
    squares = sum_values(a.square()), sum_values(b.square())
    is_constant = (squares[0] < MIN_SUM_OF_SQUARES) | (squares[1] < MIN_SUM_OF_SQUARES)
    product = (squares[0] * squares[1]).masked_fill(is_constant, float("inf"))
    return (sum_values(a * b) / product.sqrt()).clamp(max=1)


class Dist(Loss):
    """Pearson's correlation of the two networks' class probabilities, over classes and over pixels.

        L = inter · mean over pixels of (1 − ρ over classes) + intra · mean over classes of (1 − ρ over the batch's pixels)

    Huang et al., 2022 (arXiv 2205.10536); a pixel is a sample, as in their code for segmentation. The teacher's map is its
    logits, resized to the student's. Padded pixels do not count. ρ of a constant is 0, without a gradient. Over several
    processes the correlation of a class runs over the pixels of all of them.

    Shape:
        - student `feature`: B K h w; teacher logits: B K h' w'.
        - output: scalar.

    Example:
        >>> Dist(inter=1.0, intra=1.0)(step).shape
        torch.Size([])

    Args:
        weight: 1, as in their code (hunto/DIST_KD, segmentation/train_kd.py), which has no temperature.
        inter: factor of the correlation over classes; the paper's β, 1 as there.
        intra: factor of the correlation over pixels; the paper's γ, 1 as there.
        feature: the student's class logits to compare.
    """

    def __init__(self, weight: float = 1.0, inter: float = 1.0, intra: float = 1.0, feature: str = "kd_logits") -> None:
        super().__init__(weight)
        self.inter, self.intra = inter, intra
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check that both networks have the same classes."""
        assert teacher is not None
        check_same_num_classes(student, teacher, self.feature)

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student_logits, teacher_logits, valid = align_features(step, self.feature, "kd_logits")
        return dist_loss(student_logits, teacher_logits, valid, self.inter, self.intra)
