"""Threads that exchange tensors as processes do; tests/losses/test_processes.py compares losses in real processes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from segkd.check_part.findings import ContractFault
from segkd.check_part.simulated_processes import run_as_processes
from segkd.losses.distributed import all_gather_cat, count_processes, global_mean, global_sum


def compute_mean(values: list[float]) -> tuple[float, float]:
    w = torch.tensor(3.0, requires_grad=True)
    mean = global_mean((w * torch.tensor(values)).square().sum(), torch.tensor(len(values)))
    return float(mean.detach()), float(torch.autograd.grad(mean, w)[0])


def test_global_mean_of_unequal_parts() -> None:
    """Two processes with the values 1 and 2, 4, 8: the mean of (3x)² is 9 · 85/4, its gradient 6 · 85/4."""
    (a, slope_a), (b, slope_b) = run_as_processes(
        [partial(compute_mean, [1.0]), partial(compute_mean, [2.0, 4.0, 8.0])]
    )
    assert (a + b) / 2 == 9 * 85 / 4
    assert (slope_a + slope_b) / 2 == 6 * 85 / 4
    assert slope_a != slope_b
    assert compute_mean([1.0])[0] == 9  # one process again


def reduce(rank: int) -> list[list[float]]:
    values = torch.tensor([1.0 + rank, 2.0 * rank])
    results = []
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN, dist.ReduceOp.PRODUCT, dist.ReduceOp.AVG):
        reduced = values.clone()
        dist.all_reduce(reduced, op=op)
        results.append(reduced.tolist())
    sent = torch.tensor([float(rank)])
    dist.broadcast(sent, src=2)
    gathered = torch.empty(3)
    dist.all_gather_into_tensor(gathered, torch.tensor([float(rank)]))
    dist.barrier()
    return [
        *results,
        all_gather_cat(values).tolist(),
        sent.tolist(),
        gathered.tolist(),
        [dist.get_rank(), count_processes()],
    ]


def test_each_operation_of_three_processes() -> None:
    results = run_as_processes([partial(reduce, rank) for rank in range(3)])
    assert all(result[:-1] == results[0][:-1] for result in results)
    assert [result[-1] for result in results] == [[0, 3], [1, 3], [2, 3]]
    assert results[0][:-1] == [[6, 6], [3, 4], [1, 0], [6, 0], [2, 2], [1, 0, 2, 2, 3, 4], [2], [0, 1, 2]]
    assert not dist.is_initialized()


@pytest.mark.parametrize("counts", [(1, 0), (0, 1), (3, 2), (1, 4)])
def test_unequal_numbers_of_reductions_are_a_fault_and_no_hang(counts: tuple[int, int]) -> None:
    def reduce_often(count: int) -> Tensor:
        value = torch.ones(())
        for _ in range(count):
            value = global_sum(value)
        return value

    with pytest.raises(ContractFault, match="one of two processes makes a reduction that the other does not make"):
        run_as_processes([partial(reduce_often, count) for count in counts])


def test_error_of_one_process_ends_all() -> None:
    def fail() -> Tensor:
        raise KeyError("layer3")

    with pytest.raises(KeyError, match="layer3"):
        run_as_processes([fail, lambda: global_sum(torch.ones(()))])


def test_what_is_not_simulated_is_named() -> None:
    def scatter() -> None:
        dist.reduce_scatter_tensor(torch.empty(1), torch.ones(2))

    with pytest.raises(ContractFault, match=r"is not simulated here; use those of segkd\.losses\.distributed"):
        run_as_processes([scatter, scatter])
