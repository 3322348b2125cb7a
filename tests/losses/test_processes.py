"""Two processes, each with half of a batch and unequal parts of it valid: averaged, their gradients are those of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from segkd.config.targets import resolve_target
from segkd.losses.distributed import global_mean
from tests.helpers.loss_worker import VALUES, compute_loss_gradients, fill_memory, run_process
from tests.helpers.losses import SPECS


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes computes."""
    directory = tmp_path_factory.mktemp("processes")
    mp.spawn(run_process, (directory,), nprocs=2)
    return [torch.load(directory / f"{rank}.pt") for rank in range(2)]


@pytest.mark.process
def test_averaged_gradients_equal_the_gradient_of_the_global_mean(results: list[dict[str, Any]]) -> None:
    average = torch.stack([result["mean"] for result in results]).mean(0)
    expected = 2 * 3 * VALUES.square().mean()
    assert average[0] == expected
    assert average[1] != expected
    assert average[2] == average[3] == 0


@pytest.mark.process
def test_gradients_equal_those_of_the_whole_batch(results: list[dict[str, Any]]) -> None:
    first, second = (result["gradients"] for result in results)
    is_equal = {
        name: all(
            torch.allclose(torch.cat(halves) / 2, gradient, rtol=1e-4, atol=1e-8)
            for *halves, gradient in zip(first[name], second[name], gradients, strict=True)
        )
        for name, gradients in compute_loss_gradients(slice(None)).items()
    }
    exempt = {
        name for name, spec in SPECS.items() if "process_invariance" in resolve_target(spec["_target_"]).exemptions
    }
    assert is_equal == {name: name not in {*exempt, "local mean"} for name in is_equal}


@pytest.mark.process
def test_processes_share_their_memory(results: list[dict[str, Any]]) -> None:
    whole, half = fill_memory(slice(2)), fill_memory(slice(1))
    for result in results:
        assert all(torch.equal(result["memory"][name], tensor) for name, tensor in whole.items())
    assert not torch.equal(half["pixel_memory.entries"], whole["pixel_memory.entries"])


def test_global_mean_in_one_process() -> None:
    w = torch.tensor(3.0, requires_grad=True)
    assert global_mean(w * 4, torch.tensor(2)) == 6
    assert global_mean(w * 4, torch.tensor(0.5)) == 24  # weights may sum to less than 1
    empty = global_mean(w * 0, torch.tensor(0))
    assert empty == 0
    assert torch.autograd.grad(empty, w)[0] == 0
