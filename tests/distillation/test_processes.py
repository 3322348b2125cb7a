"""Several processes train like one, with a discriminator, unequal void, a gradient penalty and dropout."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from tests.helpers import distributed_worker

pytestmark = pytest.mark.process

BATCHES = 4


Result = dict[str, Any]


@cache
def launch(world: int, n_critic: int, *flags: str) -> dict[str, list[Result]]:
    """Return what each process holds after training with global means and, with --local-means, after a second training."""
    with TemporaryDirectory() as directory:
        if world == 1:
            distributed_worker.train(1, Path(directory), n_critic, 4 if "--micro-batches" in flags else 1)
        else:
            command = [sys.executable, distributed_worker.__file__, str(world), directory, str(n_critic), *flags]
            finished = subprocess.run(command, capture_output=True, text=True, timeout=250)
            assert finished.returncode == 0, finished.stderr
        names = ("global", "local") if "--local-means" in flags else ("global",)
        return {
            name: [torch.load(Path(directory) / f"{name}_{rank}.pt", weights_only=True) for rank in range(world)]
            for name in names
        }


def train(world: int, n_critic: int, *flags: str) -> list[Result]:
    """Return what each process holds after training with global means."""
    if (world, n_critic, flags) == (2, 1, ()):
        flags = ("--local-means",)  # one launch for both tests of two processes
    return launch(world, n_critic, *flags)["global"]


def compute_max_difference(a: Result, b: Result) -> float:
    """Return the greatest difference between the weights of two trainings."""
    assert a["weights"].keys() == b["weights"].keys()
    return max(float((value - b["weights"][key]).abs().max()) for key, value in a["weights"].items())


@pytest.mark.parametrize(
    ("world", "n_critic"),
    [(2, 1), *(pytest.param(w, s, marks=pytest.mark.slow) for w, s in ((2, 5), (4, 1), (4, 5)))],
)
def test_several_processes_equal_one(world: int, n_critic: int) -> None:
    """Two times four samples, and four times two, equal one batch of eight."""
    first, *others = train(world, n_critic)
    assert len(first["gradients"]) == BATCHES * (n_critic + 1)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first["gradients"], other["gradients"], strict=True))
        assert compute_max_difference(first, other) == 0
    assert compute_max_difference(first, train(1, n_critic)[0]) < 1e-6
    assert int(first["weights"]["step_count"]) == BATCHES


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_micro_batches_equal_the_whole_batch(world: int) -> None:
    """Four chunks of two samples, or in each of two processes four of one."""
    whole, chunked = train(1, 1)[0], train(world, 1, "--micro-batches")[0]
    assert compute_max_difference(whole, chunked) < 1e-6
    assert len(chunked["gradients"]) == len(whole["gradients"])


def test_local_means_are_detected() -> None:
    first, _ = launch(2, 1, "--local-means")["local"]
    assert compute_max_difference(first, train(1, 1)[0]) > 5e-6
