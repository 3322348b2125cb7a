"""Several processes take the same steps as one, with a critic, unequal void, a gradient penalty and dropout."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parents[1] / "helpers" / "distributed_worker.py"
BATCHES = 4


@cache
def trained(world: int, n_critic: int, *flags: str) -> list[dict[str, Any]]:
    """What each process holds at the end."""
    with TemporaryDirectory() as directory:
        command = [sys.executable, str(SCRIPT), str(world), directory, str(n_critic), *flags]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=250)
        assert ended.returncode == 0, ended.stderr
        return [torch.load(Path(directory) / f"{world}_{rank}.pt", weights_only=True) for rank in range(world)]


def greatest_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Between the weights of two trainings."""
    assert a["weights"].keys() == b["weights"].keys()
    return max(float((value - b["weights"][key]).abs().max()) for key, value in a["weights"].items())


@pytest.mark.parametrize(
    ("world", "n_critic"),
    [(2, 1), *(pytest.param(w, s, marks=pytest.mark.slow) for w, s in ((2, 5), (4, 1), (4, 5)))],
)
def test_several_processes_equal_one(world: int, n_critic: int) -> None:
    """Two times four samples, and four times two, are eight."""
    first, *others = trained(world, n_critic)
    assert len(first["gradients"]) == BATCHES * (n_critic + 1)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first["gradients"], other["gradients"], strict=True))
        assert greatest_difference(first, other) == 0
    assert greatest_difference(first, trained(1, n_critic)[0]) < 1e-6
    assert int(first["weights"]["step_count"]) == BATCHES


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_batch_in_parts_equals_the_whole(world: int) -> None:
    """Four parts of two samples, or in each of two processes four of one."""
    whole, parts = trained(1, 1)[0], trained(world, 1, "--in-parts")[0]
    assert greatest_difference(whole, parts) < 1e-6
    assert len(parts["gradients"]) == len(whole["gradients"])


def test_the_comparison_finds_local_means() -> None:
    first, _ = trained(2, 1, "--local-means")
    assert greatest_difference(first, trained(1, 1)[0]) > 5e-6
