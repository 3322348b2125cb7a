"""Dropout whose randomness depends on the sample instead of the process, padding, and initialization.

A step must give the same gradient in one process and in eight, and the same again after a resume. A mask may therefore depend
on nothing but the sample's seed, which is a function of (seed, epoch, index).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor, nn

_seeds: ContextVar[Tensor | None] = ContextVar("sample_seeds", default=None)


@contextmanager
def use_sample_seeds(seeds: Tensor) -> Iterator[None]:
    """Make `SampleDropout2d` draw from these seeds, B int64, inside the context."""
    token = _seeds.set(seeds)
    try:
        yield
    finally:
        _seeds.reset(token)


class SampleDropout2d(nn.Module):
    """Dropout of whole channels, drawn per sample from the batch's seeds; `nn.Dropout2d` outside `use_sample_seeds`.

    Args:
        p: the share of channels to drop.
        salt: separates the random numbers of two layers of one network.
    """

    def __init__(self, p: float, salt: int = 0) -> None:
        super().__init__()
        self.p = p
        self.salt = salt

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w with channels dropped in training."""
        if not self.training or self.p == 0:
            return x
        seeds = _seeds.get()
        if seeds is None:
            return nn.functional.dropout2d(x, self.p)
        keep = draw_uniform(seeds, x.shape[1], self.salt) >= self.p
        return x * (keep.to(x) / (1 - self.p))[:, :, None, None]


def draw_uniform(seeds: Tensor, count: int, salt: int = 0) -> Tensor:
    """Return `count` uniform numbers in [0, 1) for each seed: B count, the same on every device and in every process."""
    generator = torch.Generator()
    rows = [torch.rand(count, generator=generator.manual_seed(_mix(seed, salt))) for seed in seeds.tolist()]
    return torch.stack(rows).to(seeds.device)


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Pad B C H W with zeros at the right and the bottom until `divisor` divides height and width."""
    height, width = x.shape[-2:]
    return nn.functional.pad(x, (0, -width % divisor, 0, -height % divisor))


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Double B C h w; each value goes to the position of a 2×2 window's maximum that `indices` holds, and zeros elsewhere."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return nn.functional.max_unpool2d(x, indices, (2, 2))
    # Exporters have no unpooling.
    batch, channels, height, width = x.shape
    zeros = x.new_zeros(batch, channels, 4 * height * width)
    return zeros.scatter(2, indices.flatten(2), x.flatten(2)).view(batch, channels, 2 * height, 2 * width)


def divide_up(dividend: int, divisor: int) -> int:
    """Return a quotient of positive numbers, rounded up.

    Recorded divisions truncate in ONNX, where the usual `-(-a // b)` rounds down.
    """
    return (dividend + divisor - 1) // divisor


def initialize_convolutions(network: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Set the weights of all convolutions as He et al. (2015, arXiv 1502.01852) do, and their biases to zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _mix(seed: int, salt: int) -> int:
    # One seed serves several layers; an odd multiplier (2^64 divided by the golden ratio) keeps their streams apart.
    return (seed ^ (0x9E3779B97F4A7C15 * (salt + 1))) & 0x7FFFFFFFFFFFFFFF
