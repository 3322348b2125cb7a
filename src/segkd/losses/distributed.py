"""Sums and means over all processes."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """`total / count` with both summed over all processes; zero where nothing counts anywhere.

    Distributed training averages gradients over processes, so each process returns its own total times the number of
    processes over the global count: the average of the gradients is then the gradient of the global mean.
    """
    everywhere = global_sum(count)
    return total * count_processes() / torch.where(everywhere > 0, everywhere, 1)


def global_sum(share: Tensor) -> Tensor:
    """The sum over all processes, for what is no mean: its gradient, averaged over processes, is that of the sum.

    Not to be nested: of a sum in a sum each process knows its own part of the gradient alone.
    """
    processes = count_processes()
    if processes == 1:
        return share
    total = share.detach().clone()
    torch.distributed.all_reduce(total)
    return total + processes * (share - share.detach())


def count_processes() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1
