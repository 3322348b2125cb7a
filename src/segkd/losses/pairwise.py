"""Pair-wise distillation: positions that are similar to the teacher become similar to the student."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.features import align_features
from segkd.losses.functional import pairwise_affinity_loss
from segkd.types import Step


class Pairwise(FeatureLoss):
    """Squared difference of the two networks' cosine similarities, over all pairs of nodes.

        L = mean over i, j of (a_ij^student − a_ij^teacher)²,   a_ij = f_i · f_j / (‖f_i‖ ‖f_j‖)

    Liu et al., 2019, equation 2. A node is a patch of `node_size` × `node_size` positions of the feature map (β = 2×2 in the
    journal version, arXiv 1903.04197 v2, table 2), and every pair is compared (α unlimited). Only similarities are
    compared, so the channels may differ. The teacher's map is resized to the student's. Padded nodes do not count.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> Pairwise(node_size=2)(step).shape
        torch.Size([])

    Args:
        weight: 10, the paper's λ1.
        node_size: the side of a node, in positions of the feature map.
        pooling: `mean` (the paper) or `max` (the published code, which its first author found better: issue 46).
        feature: name of the compared feature, in both networks.
    """

    def __init__(
        self, weight: float = 10.0, node_size: int = 2, pooling: str = "mean", feature: str = "encoder"
    ) -> None:
        if node_size < 1:
            raise ValueError(f"node_size must be 1 or more, not {node_size}")
        if pooling not in ("mean", "max"):
            raise ValueError(f"pooling is 'mean' or 'max', not '{pooling}'")
        super().__init__(weight, feature)
        self.node_size = node_size
        self.pooling = pooling

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, _ = align_features(step, self.feature, self.feature)
        return pairwise_affinity_loss(student, teacher, step.batch.valid, self.node_size, self.pooling)
