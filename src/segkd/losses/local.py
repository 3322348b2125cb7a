"""Local pair-wise distillation: a position differs from its neighbors as the teacher's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.features import align_features
from segkd.losses.functional import local_affinity_loss
from segkd.types import Step


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
        return local_affinity_loss(*align_features(step, self.feature, self.feature))
