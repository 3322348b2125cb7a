"""Layers whose randomness belongs to the sample, not to the process.

A step must give the same gradient in one process and in eight, and the same again after a resume; so a mask may depend on
nothing but the sample's key, which is a function of (seed, epoch, index).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_keys: ContextVar[Tensor | None] = ContextVar("sample_keys", default=None)


@contextmanager
def use_sample_seeds(keys: Tensor) -> Iterator[None]:
    """Within it, `SampleDropout2d` draws from these keys, B int64."""
    token = _keys.set(keys)
    try:
        yield
    finally:
        _keys.reset(token)


class SampleDropout2d(nn.Module):
    """Dropout of whole channels, drawn per sample from the batch's keys; like `nn.Dropout2d` where no keys are given.

    Args:
        p: the share of channels to drop.
        salt: tells two layers of one network apart.
    """

    def __init__(self, p: float, salt: int = 0) -> None:
        super().__init__()
        self.p = p
        self.salt = salt

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keys = _keys.get()
        if keys is None:
            return nn.functional.dropout2d(x, self.p)
        kept = draw_uniform(keys, x.shape[1], self.salt) >= self.p
        return x * (kept.to(x) / (1 - self.p))[:, :, None, None]


def draw_uniform(keys: Tensor, count: int, salt: int = 0) -> Tensor:
    """`count` uniform numbers in [0, 1) for each key: B count, the same on every device and in every process."""
    generator = torch.Generator()
    rows = [torch.rand(count, generator=generator.manual_seed(_mix(key, salt))) for key in keys.tolist()]
    return torch.stack(rows).to(keys.device)


def _mix(key: int, salt: int) -> int:
    # One key seeds several draws; an odd multiplier (2^64 divided by the golden ratio) keeps their seeds apart.
    return (key ^ (0x9E3779B97F4A7C15 * (salt + 1))) & 0x7FFFFFFFFFFFFFFF


def pad_to_multiple(x: Tensor, side: int) -> Tensor:
    """B C H W with zeros at the right and the bottom, so that `side` divides its height and width."""
    height, width = x.shape[-2:]
    return nn.functional.pad(x, (0, -width % side, 0, -height % side))
