"""Local pair-wise distillation: a place differs from its neighbours as the teacher's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.losses.functional import safe_normalize
from segkd.types import Step

NEIGHBOR_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Down and right, of half the neighbours: the other half see the same pairs."""


class Local(FeatureLoss):
    """Squared difference of the two networks' cosine similarities, over all pairs of neighbours.

        L = mean over places i, neighbours j of (a_ij^student − a_ij^teacher)²,   a_ij = f_i · f_j / (‖f_i‖ ‖f_j‖)

    Local pair-wise distillation in Liu et al., 2019, table 2: equation 2 on the 8 neighbours of a place. At the border of the
    map there are fewer. Maps are B C h w; only similarities are compared, so the channels may differ. The teacher's map is
    resized to the student's. A pair counts where neither place is padded.

    Args:
        weight: 10, the paper's λ1 of pair-wise distillation, whose unit it shares; the table names none.
        feature: the features that are compared, of both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "crop_invariance": "beside a copy of itself the crop has neighbours at its border"
    }

    def __init__(self, weight: float = 10.0, feature: str = "encoder") -> None:
        super().__init__(weight, feature)

    def forward(self, step: Step) -> Tensor:
        ours, theirs, counted = align_features(step, self.feature, self.feature)
        student, teacher = safe_normalize(ours), safe_normalize(theirs)
        total, pairs = ours.new_zeros(()), counted.new_zeros((), dtype=counted.sum().dtype)
        for way in NEIGHBOR_OFFSETS:
            one, other = gather_neighbors(counted, *way)
            difference = compute_similarity(student, *way) - compute_similarity(teacher, *way)
            total = total + (difference.square() * (one & other)).sum()
            pairs = pairs + (one & other).sum()
        return global_mean(total, pairs)


def compute_similarity(units: Tensor, down: int, right: int) -> Tensor:
    """Cosine of each place with its neighbour in one direction."""
    one, other = gather_neighbors(units, down, right)
    return (one * other).sum(1)


def gather_neighbors(maps: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Two views of ... h w, of equal shape: the second holds the neighbours of the places in the first."""
    height, width = maps.shape[-2:]
    one = maps[..., : height - down, max(0, -right) : width - max(0, right)]
    other = maps[..., down:, max(0, right) : width - max(0, -right)]
    return one, other
