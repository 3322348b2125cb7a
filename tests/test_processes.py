"""Two processes take the same steps as one, with a critic, unequal void, a gradient penalty and dropout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("processes.py")


def trained(world: int, directory: Path, *flags: str) -> list[dict[str, Any]]:
    """What each process holds at the end."""
    command = [sys.executable, str(SCRIPT), str(world), str(directory), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    return [torch.load(directory / f"{world}_{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(1, tmp_path_factory.mktemp("alone"))[0]


def greatest_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Between the weights of two trainings."""
    assert a["weights"].keys() == b["weights"].keys()
    return max(float((value - b["weights"][key]).abs().max()) for key, value in a["weights"].items())


def test_two_processes_equal_one(alone: dict[str, Any], tmp_path: Path) -> None:
    first, second = trained(2, tmp_path)
    assert len(first["gradients"]) == 8 * 3  # two updates of the critic and one of the student a batch
    assert all(torch.equal(a, b) for a, b in zip(first["gradients"], second["gradients"], strict=True))
    assert greatest_difference(first, second) == 0
    assert greatest_difference(first, alone) < 1e-5
    assert int(first["weights"]["step_count"]) == 8


def test_the_comparison_finds_local_means(alone: dict[str, Any], tmp_path: Path) -> None:
    first, _ = trained(2, tmp_path, "--local-means")
    assert greatest_difference(first, alone) > 1e-4
