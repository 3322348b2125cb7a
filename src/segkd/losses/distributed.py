"""Sums, means and gathering over all processes."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Return `total / count`, both summed over all processes; zero where the global count is zero.

    Distributed training averages gradients over processes, so each process returns its own total times the number of
    processes over the global count: the average of the gradients is then the gradient of the global mean.

    Args:
        total: sum of the values of this process, a scalar.
        count: how many they are; may be fractional.
    """
    global_count = global_sum(count)
    return total * count_processes() / torch.where(global_count > 0, global_count, 1)


def global_sum(values: Tensor) -> Tensor:
    """Return the sum over all processes; its gradient, averaged over processes, is the gradient of that sum.

    Use it for quantities that are not means. Do not nest it: in a sum of sums each process knows only its own part of the
    gradient.
    """
    num_processes = count_processes()
    if num_processes == 1:
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total + num_processes * (values - values.detach())


def all_gather_cat(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, of equal shape, concatenated along the first axis; without gradient."""
    if not is_distributed():
        return tensor
    gathered = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, tensor.contiguous())
    return torch.cat(gathered)


def count_processes() -> int:
    """Return the number of processes, 1 outside of distributed training."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def is_distributed() -> bool:
    """Return whether a process group is initialized."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
