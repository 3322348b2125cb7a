"""Tensor functions that losses share."""

from __future__ import annotations

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

_MIN_NORM = 1e-6


def at_least_float32(maps: Tensor) -> Tensor:
    """The maps in float32, or as they are where that is wider: bfloat16 keeps three digits."""
    return maps.float() if maps.dtype.itemsize < 4 else maps


def safe_normalize(features: Tensor, dim: int = 1) -> Tensor:
    """Features over their norms.

    One that is zero, as all channels are after a ReLU that fires nowhere, has no direction: it stays zero and gets no
    gradient, where `F.normalize` would multiply its gradient by 10¹².
    """
    norm = torch.linalg.vector_norm(features, dim=dim, keepdim=True)
    return torch.where(norm > _MIN_NORM, features / norm.clamp(min=_MIN_NORM), 0)


def downsample_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """B H W bool at a map's size, B h w: a place counts where the pixel nearest to it does."""
    if mask.shape[-2:] == size:
        return mask
    return F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")[:, 0] > 0.5
