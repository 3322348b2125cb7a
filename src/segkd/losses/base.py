"""The contract of a loss.

A loss is a function of a `Step`. It returns its *raw* value; the weighted sum is `LossSum`'s. Every loss has one unit: the
mean over the counted pixels (or pairs of nodes) of the global batch, so that a weight means the same at any batch size,
crop size and number of processes. Sums are in float32 or wider. Where nothing counts the value is a zero that can be
differentiated. A distillation loss is zero where student and teacher say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.types import Outputs, Step, Tap, Taps


class Loss(nn.Module):
    """Base of all losses.

    Args:
        weight: its share in the objective; None for a default that depends on the taps, set by `connect`.
    """

    needs_teacher: ClassVar[bool] = True
    exemptions: ClassVar[Mapping[str, str]] = {}
    """Lines of the contract that it cannot keep, each with the reason: zero_at_equality, batch_invariance, crop_invariance."""

    def __init__(self, weight: float | None = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def connect(self, student: Taps, teacher: Taps | None) -> None:
        """Check the taps and make what depends on them, once, before any optimiser exists.

        Raises:
            UserError: a tap does not exist, or the two sides do not fit.
        """

    def forward(self, step: Step) -> Tensor:
        """The raw loss, a scalar."""
        raise NotImplementedError


def tap_of(taps: Taps, name: str, whose: str) -> Tap:
    """The declared tap of a name.

    Raises:
        UserError: there is none; names those that there are.
    """
    if name not in taps:
        raise UserError(f"the {whose} has no tap '{name}'; it has {', '.join(taps)}")
    return taps[name]


def teacher_of(step: Step) -> Outputs:
    """The teacher's answer, which a distillation loss cannot do without."""
    if step.teacher is None:
        raise ValueError("this loss compares with a teacher, and the step has none")
    return step.teacher


def wide(maps: Tensor) -> Tensor:
    """The maps in float32, or as they are where that is wider: bfloat16 keeps three digits."""
    return maps.float() if maps.dtype.itemsize < 4 else maps


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """`total / count` with both summed over all processes; zero where nothing counts anywhere.

    Distributed training averages gradients over processes, so each process returns its own total times the number of
    processes over the global count: the average of the gradients is then the gradient of the global mean.
    """
    world = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        world = torch.distributed.get_world_size()
        count = count.clone()
        torch.distributed.all_reduce(count)
    return total * world / count.clamp(min=1)
