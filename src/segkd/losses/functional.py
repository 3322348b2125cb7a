"""Loss formulas as functions of tensors, for use in any training loop, and the tensor helpers that losses share.

Each loss returns the mean over the valid positions (pairs, channels, images) of the global batch, without a weight. `valid`
is a mask B H W bool at any resolution; without it every position counts. Student and teacher maps are B C h w of equal
h w; the teacher's should be detached.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.distributed import global_mean

NEIGHBOR_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows down and columns right of half the neighbors; the other half form the same pairs."""

_MIN_NORM = 1e-6


def pixelwise_kl(
    student_logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Return T² · mean over pixels of KL(softmax(teacher / T) ‖ softmax(student / T)); see `Pixelwise`."""
    valid = _resize_valid(valid, student_logits)
    log_q = F.log_softmax(student_logits / temperature, 1)
    log_p = F.log_softmax(teacher_logits / temperature, 1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return temperature**2 * global_mean((divergence * valid).sum(), valid.sum())


def channelwise_kl(student: Tensor, teacher: Tensor, valid: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Return T² · mean over images and channels of the KL divergence of the softmax over positions; see `Channelwise`."""
    valid = _resize_valid(valid, student)
    log_q, log_p = (_log_softmax_over_positions(maps / temperature, valid) for maps in (student, teacher))
    divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    channels = valid.flatten(1).any(1).sum() * student.shape[1]
    return temperature**2 * global_mean(divergence, channels)


def pairwise_affinity_loss(
    student: Tensor, teacher: Tensor, valid: Tensor | None = None, node_size: int = 2, pooling: str = "mean"
) -> Tensor:
    """Return the mean squared difference of the cosine similarities of all pairs of nodes; see `Pairwise`.

    Args:
        student: B C h w; C may differ from the teacher's.
        teacher: B C' h w.
        valid: see the module.
        node_size: side of a node in positions.
        pooling: `mean` or `max`.
    """
    pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
    # Autocast would take the products of the direct form in bfloat16.
    with torch.autocast(student.device.type, enabled=False):
        nodes = [pool(maps, node_size, node_size, ceil_mode=True) for maps in (student, teacher)]
        mask = _resize_valid(valid, nodes[0]).to(student).flatten(1)[:, None]
        student_nodes, teacher_nodes = (safe_normalize(maps.flatten(2)) * mask for maps in nodes)
        difference = compute_sum_squared_difference(student_nodes, teacher_nodes)
        pairs = mask.sum((1, 2)).square().sum()
        return global_mean(difference, pairs)


def local_affinity_loss(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of the cosine similarities of all pairs of neighbors; see `Local`."""
    valid = _resize_valid(valid, student)
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


def attention_loss(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over images of the squared distance of unit-length attention maps; see `Attention`."""
    valid = _resize_valid(valid, student)
    student_map, teacher_map = (
        F.normalize((maps.square().sum(1) * valid).flatten(1), dim=1) for maps in (student, teacher)
    )
    return global_mean((student_map - teacher_map).square().sum(), valid.flatten(1).any(1).sum())


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


def at_least_float32(maps: Tensor) -> Tensor:
    """Return the maps in float32, or unchanged where they are wider: bfloat16 has three digits."""
    return maps.float() if maps.dtype.itemsize < 4 else maps


def safe_normalize(features: Tensor, dim: int = 1) -> Tensor:
    """Divide features by their norms.

    A zero feature, which a ReLU that is nowhere active leaves, has no direction: it stays zero and gets no gradient, where
    `F.normalize` would multiply its gradient by 10¹².
    """
    norm = torch.linalg.vector_norm(features, dim=dim, keepdim=True)
    return torch.where(norm > _MIN_NORM, features / norm.clamp(min=_MIN_NORM), 0)


def downsample_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask B H W bool to B h w: a position is true where its nearest pixel is."""
    if mask.shape[-2:] == size:
        return mask
    return F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")[:, 0] > 0.5


def _resize_valid(valid: Tensor | None, maps: Tensor) -> Tensor:
    """Return the mask at the size of the maps, B h w bool; all true without one."""
    size = (maps.shape[-2], maps.shape[-1])
    if valid is None:
        return torch.ones(len(maps), *size, dtype=torch.bool, device=maps.device)
    return downsample_mask(valid, size)


def _log_softmax_over_positions(maps: Tensor, valid: Tensor) -> Tensor:
    """Return log-probabilities of the positions of each channel, B C hw."""
    # Not −∞: zero probability times ∞ − ∞ is NaN.
    masked = maps.masked_fill(~valid[:, None], torch.finfo(maps.dtype).min)
    return F.log_softmax(masked.flatten(2), 2)


def _sum_squared_products(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).square().sum()


def _pair_neighbors(maps: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return two views of … h w, of equal shape: the second holds the neighbors of the positions in the first."""
    height, width = maps.shape[-2:]
    first = maps[..., : height - down, max(0, -right) : width - max(0, right)]
    second = maps[..., down:, max(0, right) : width - max(0, -right)]
    return first, second
