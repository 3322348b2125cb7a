"""Local pair-wise distillation: a position differs from its neighbors as the teacher's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.checks import prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.losses.tensors import safe_normalize
from segkd.types import Step

NEIGHBOR_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows down and columns right of half the neighbors; the other half form the same pairs."""


def local_loss(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over positions i and neighbors j of (a_ij^student − a_ij^teacher)², with a_ij = cos(f_i, f_j).

    Liu et al., 2019 (arXiv 1903.04197), table 2; a position has 8 neighbors, fewer at the border.

    Args:
        student: a feature, B C h w.
        teacher: a feature, B C' h w.
        valid: the positions that count, B H W bool at any resolution, by default all; a pair counts where both do.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 64, 45, 60), torch.randn(2, 512, 45, 60)
        >>> local_loss(student, teacher).shape
        torch.Size([])
    """
    student, teacher = prepare_maps(student, teacher)
    valid = prepare_valid(valid, student)
    student_units, teacher_units = safe_normalize(student), safe_normalize(teacher)
    total, pairs = student.new_zeros(()), valid.new_zeros((), dtype=valid.sum().dtype)
    for down, right in NEIGHBOR_OFFSETS:
        first, second = _pair_neighbors(valid, down, right)
        student_similarity, teacher_similarity = (
            torch.mul(*_pair_neighbors(units, down, right)).sum(1) for units in (student_units, teacher_units)
        )
        total = total + ((student_similarity - teacher_similarity).square() * (first & second)).sum()
        pairs = pairs + (first & second).sum()
    return global_mean(total, pairs)


def _pair_neighbors(maps: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return two views of … h w, of equal shape: the second holds the neighbors of the positions in the first."""
    height, width = maps.shape[-2:]
    first = maps[..., : height - down, max(0, -right) : width - max(0, right)]
    second = maps[..., down:, max(0, right) : width - max(0, -right)]
    return first, second


class Local(FeatureLoss):
    """Squared difference of the two networks' cosine similarities, over all pairs of neighbors.

        L = mean over positions i, neighbors j of (a_ij^student − a_ij^teacher)²,   a_ij = f_i · f_j / (‖f_i‖ ‖f_j‖)

    Local pair-wise distillation in Liu et al., 2019, table 2: equation 2 on the 8 neighbors of a position, fewer at the
    border of the map. Only similarities are compared, so the channels may differ. The teacher's map is resized to the
    student's. A pair counts where neither position is padded.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> Local()(step).shape
        torch.Size([])

    Args:
        weight: 10, the paper's λ1 of pair-wise distillation, whose unit it shares; the table names none.
        feature: name of the compared feature, in both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "crop_invariance": "beside a copy of itself the crop has neighbors at its border"
    }

    def __init__(self, weight: float = 10.0, feature: str = "encoder") -> None:
        super().__init__(weight, feature)

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        return local_loss(*align_features(step, self.feature, self.feature))
