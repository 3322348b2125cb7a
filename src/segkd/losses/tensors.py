"""Tensor helpers that losses share: precision, norms, and masks and labels at the resolution of a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MIN_NORM = 1e-6


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


def downsample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize labels B H W to B h w int64: a position has the label of its nearest pixel."""
    if labels.shape[-2:] == size:
        return labels.long()
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


def get_size(maps: Tensor) -> tuple[int, int]:
    """Return height and width, the last two axes."""
    return maps.shape[-2], maps.shape[-1]
