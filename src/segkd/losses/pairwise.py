"""Pair-wise distillation: places that look alike to the teacher look alike to the student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.losses.functional import safe_normalize
from segkd.types import Step


class Pairwise(FeatureLoss):
    """Squared difference of the two networks' cosine similarities, over all pairs of nodes.

        L = mean over i, j of (a_ij^student − a_ij^teacher)²,   a_ij = f_i · f_j / (‖f_i‖ ‖f_j‖)

    Liu et al., 2019, equation 2. A node is a patch of `node` × `node` pixels of the feature map (β = 2×2 in the journal
    version, arXiv 1903.04197 v2, table 2), and every pair is compared (α unlimited). Maps are B C h w; only
    similarities are compared, so the channels may differ. The teacher's map is resized to the student's. Padded nodes do not count.

    With n nodes and more nodes than channels, the exact identity

        ‖S Sᵀ − T Tᵀ‖² = ‖Sᵀ S‖² + ‖Tᵀ T‖² − 2 ‖Sᵀ T‖²

    replaces n × n by C × C matrices. It subtracts large equal numbers, so these are in float64: in float32 their rounding
    exceeds the value where features differ by 0.1 %.

    Args:
        weight: 10, the paper's λ1.
        node_size: the side of a node, in pixels of the feature map.
        pooling: `mean` (the paper) or `max` (the published code, which its first author found better: issue 46).
        feature: the features that are compared, of both networks.
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
        ours, theirs, _ = align_features(step, self.feature, self.feature)
        # Autocast would take the products of the direct form in bfloat16.
        with torch.autocast(ours.device.type, enabled=False):
            counted = self._counted(step.batch.valid, ours)
            student_nodes = self._nodes(ours) * counted
            teacher_nodes = self._nodes(theirs) * counted
            difference = sum_squared_difference(student_nodes, teacher_nodes)
            pairs = counted.sum((1, 2)).square().sum()
            return global_mean(difference, pairs)

    def _nodes(self, features: Tensor) -> Tensor:
        """Unit vectors of the nodes, B C n."""
        if self.pooling == "max":
            pooled = F.max_pool2d(features, self.node_size, self.node_size, ceil_mode=True)
        else:
            pooled = F.avg_pool2d(features, self.node_size, self.node_size, ceil_mode=True)
        return safe_normalize(pooled.flatten(2))

    def _counted(self, valid: Tensor, features: Tensor) -> Tensor:
        """B 1 n: one where a node lies in the image, else zero."""
        size = [-(-side // self.node_size) for side in features.shape[-2:]]
        return (F.interpolate(valid[:, None].float(), size=size, mode="nearest-exact") > 0.5).to(features).flatten(2)


def sum_squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ over images and node pairs of the squared difference of similarities, of unit vectors B C n."""
    channels = max(student.shape[1], teacher.shape[1])
    if student.shape[2] <= channels:
        return (student.mT @ student - teacher.mT @ teacher).square().sum()
    ours, theirs = student.double(), teacher.double()
    total = _gram(ours, ours) + _gram(theirs, theirs) - 2 * _gram(ours, theirs)
    return total.clamp(min=0).to(student)


def _gram(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).square().sum()
