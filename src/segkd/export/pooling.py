"""Adaptive average pooling that a recorded graph computes for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TraceableAdaptivePooling(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two products with matrices of weights, whose size follows from the map.

    Args:
        bins: height and width of the output; None for the input's.
    """

    def __init__(self, bins: tuple[int | None, int | None]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """Return B C height width."""
        vertical, horizontal = self.bins
        if vertical is not None:
            x = _compute_weights(vertical, x.shape[-2], x) @ x
        if horizontal is not None:
            x = x @ _compute_weights(horizontal, x.shape[-1], x).T
        return x


def replace_adaptive_pooling(network: nn.Module) -> None:
    """Replace the modules for adaptive average pooling, which ONNX cannot express for maps of any size."""
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.AdaptiveAvgPool2d and child.output_size not in (1, (1, 1)):
                size = child.output_size
                setattr(module, name, TraceableAdaptivePooling(size if isinstance(size, tuple) else (size, size)))


def _compute_weights(bins: int, side: int, like: Tensor) -> Tensor:
    """Return bins × side: a row holds 1 / length at its interval, [⌊i · side / bins⌋, ⌈(i + 1) · side / bins⌉), else 0."""
    first = torch.arange(bins, device=like.device)[:, None] * side
    start, end = first // bins, (first + side + bins - 1) // bins
    position = torch.arange(side, device=like.device)
    is_inside = (position >= start) & (position < end)
    return is_inside.to(like.dtype) / (end - start).to(like.dtype)
