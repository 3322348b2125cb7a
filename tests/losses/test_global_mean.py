"""The mean over all processes, and its gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from segkd.losses.distributed import global_mean

VALUES = torch.tensor([1.0, 2.0, 4.0, 8.0])
"""What there is to count: the first process has one of them, the second the other three."""


def losses(rank: int, directory: Path) -> None:
    """Gradients of the mean of (w·x)² at w = 3 as this process has them, by the global and by its own mean."""
    dist.init_process_group("gloo", init_method=f"file://{directory / 'meeting'}", rank=rank, world_size=2)
    mine = VALUES[:1] if rank == 0 else VALUES[1:]
    w = torch.tensor(3.0, requires_grad=True)

    def total() -> torch.Tensor:
        return (w * mine).square().sum()

    nothing = global_mean(w * 0, torch.tensor(0))
    found = [
        torch.autograd.grad(loss, w)[0]
        for loss in (global_mean(total(), torch.tensor(len(mine))), total() / len(mine), nothing)
    ]
    torch.save(torch.stack([*found, nothing.detach()]), directory / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.process
def test_average_of_the_gradients_is_the_gradient_of_the_global_mean(tmp_path: Path) -> None:
    mp.spawn(losses, (tmp_path,), nprocs=2)
    average = torch.stack([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]).mean(0)
    truly = 2 * 3 * VALUES.square().mean()
    assert average[0] == truly
    assert average[1] != truly
    assert average[2] == average[3] == 0


def test_alone_it_is_the_mean() -> None:
    w = torch.tensor(3.0, requires_grad=True)
    assert global_mean(w * 4, torch.tensor(2)) == 6
    assert global_mean(w * 4, torch.tensor(0.5)) == 24  # weights may sum to less than 1
    nothing = global_mean(w * 0, torch.tensor(0))
    assert nothing == 0
    assert torch.autograd.grad(nothing, w)[0] == 0
