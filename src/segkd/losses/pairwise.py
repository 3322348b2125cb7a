"""Pair-wise distillation: positions that are similar to the teacher become similar to the student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.checks import prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.losses.tensors import get_size, safe_normalize
from segkd.types import Step


def pairwise_loss(
    student: Tensor, teacher: Tensor, valid: Tensor | None = None, node_size: int = 2, pooling: str = "mean"
) -> Tensor:
    """Return the mean over pairs of nodes i, j of (a_ij^student − a_ij^teacher)², with a_ij = cos(f_i, f_j).

    Liu et al., 2019 (arXiv 1903.04197), equation 2.

    Args:
        student: a feature, B C h w.
        teacher: a feature, B C' h w.
        valid: the positions that count, B H W bool at any resolution, by default all; a node counts where its nearest pixel does.
        node_size: side of a node in positions.
        pooling: `mean` or `max`, over the positions of a node.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 64, 45, 60), torch.randn(2, 512, 45, 60)
        >>> pairwise_loss(student, teacher, node_size=2).shape
        torch.Size([])
    """
    _check_nodes(node_size, pooling)
    student, teacher = prepare_maps(student, teacher)
    pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
    # Autocast would take the products of the direct form in bfloat16.
    with torch.autocast(student.device.type, enabled=False):
        nodes = [pool(maps, node_size, node_size, ceil_mode=True) for maps in (student, teacher)]
        mask = prepare_valid(valid, student, get_size(nodes[0])).to(student).flatten(1)[:, None]
        student_nodes, teacher_nodes = (safe_normalize(maps.flatten(2)) * mask for maps in nodes)
        difference = compute_sum_squared_difference(student_nodes, teacher_nodes)
        pairs = mask.sum((1, 2)).square().sum()
        return global_mean(difference, pairs)


def compute_sum_squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ over images and node pairs of the squared difference of similarities, of unit vectors B C n.

    With n nodes and more nodes than channels, the exact identity ‖S Sᵀ − T Tᵀ‖² = ‖Sᵀ S‖² + ‖Tᵀ T‖² − 2 ‖Sᵀ T‖² replaces
    n × n by C × C matrices. It subtracts large equal numbers, so these are in float64: in float32 their rounding exceeds
    the value where features differ by 0.1 %.
    """
    channels = max(student.shape[1], teacher.shape[1])
    if student.shape[2] <= channels:
        return (student.mT @ student - teacher.mT @ teacher).square().sum()
    s, t = student.double(), teacher.double()
    total = _sum_squared_products(s, s) + _sum_squared_products(t, t) - 2 * _sum_squared_products(s, t)
    return total.clamp(min=0).to(student)


def _sum_squared_products(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).square().sum()


def _check_nodes(node_size: int, pooling: str) -> None:
    if node_size < 1:
        raise ValueError(f"node_size must be 1 or more, not {node_size}")
    if pooling not in ("mean", "max"):
        raise ValueError(f"pooling is 'mean' or 'max', not '{pooling}'")


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
        _check_nodes(node_size, pooling)
        super().__init__(weight, feature)
        self.node_size = node_size
        self.pooling = pooling

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, _ = align_features(step, self.feature, self.feature)
        return pairwise_loss(student, teacher, step.batch.valid, self.node_size, self.pooling)
