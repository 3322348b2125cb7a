"""Fixtures of all tests; see CONTRIBUTING for the kinds of tests."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from commands import Command, in_process
from segkd.data.streets import Streets
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNet
from segkd.models.weights import save_student
from segkd.types import Batch, Outputs, Step

os.environ.setdefault("WANDB_MODE", "disabled")
# The networks are small, and two threads beside another process are many times slower; commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

_TRUTH = os.environ.get("SEGKD_TRUTH")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _TRUTH is None:
        for item in items:
            if item.get_closest_marker("truth"):
                item.add_marker(pytest.mark.skip(reason="SEGKD_TRUTH is not set"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "SEGKD_TRUTH" in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} truth tests were skipped: SEGKD_TRUTH does not name the folder of the authors' figures"
        )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def truth() -> Path:
    """The folder of the authors' figures; a file that is missing there fails the test that wants it."""
    assert _TRUTH is not None
    return Path(_TRUTH).resolve()


@pytest.fixture
def normalization() -> Normalization:
    return Normalization((110.0, 110.0, 110.0), (55.0, 55.0, 55.0))


def step_of(
    classes: int = 5,
    features: tuple[int, int] = (12, 20),
    size: tuple[int, int] = (6, 8),
    batch: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Step:
    """A step of random maps at 1/8; student and teacher differ in the width of their features."""
    g = torch.Generator().manual_seed(seed)
    height, width = 8 * size[0], 8 * size[1]

    def maps(channels: int) -> torch.Tensor:
        return torch.randn(batch, channels, *size, generator=g, dtype=torch.float64).to(dtype)

    def outputs(width_of_features: int) -> Outputs:
        scores = maps(classes)
        return Outputs(scores, {"scores": scores, "encoder": maps(width_of_features)}, True)

    student, teacher = outputs(features[0]), outputs(features[1])
    for tensor in student.taps.values():
        tensor.requires_grad_()
    data = Batch(
        torch.randint(0, 256, (batch, 3, height, width), generator=g, dtype=torch.uint8),
        torch.randint(0, classes, (batch, height, width), generator=g),
        torch.ones(batch, height, width, dtype=torch.bool),
        torch.arange(batch),
    )
    return Step(data, student, teacher)


def step_between(student: torch.Tensor, teacher: torch.Tensor, **batch: torch.Tensor) -> Step:
    """A step whose every map is one of these two; all pixels are valid and of class 0 unless `batch` says otherwise."""
    count, _, height, width = student.shape
    data = Batch(
        torch.zeros(count, 3, height, width, dtype=torch.uint8),
        torch.zeros(count, height, width, dtype=torch.int64),
        torch.ones(count, height, width, dtype=torch.bool),
        torch.arange(count),
    )._replace(**batch)
    ours, theirs = (Outputs(maps, {"scores": maps, "encoder": maps}, True) for maps in (student, teacher))
    return Step(data, ours, theirs)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command("train", "seed=1")` runs `python -m segkd.train seed=1` in this process."""
    return partial(in_process, capsys, monkeypatch)


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ESPNet for CamVid's classes with random weights, as a run leaves it."""
    directory = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(1)
    facts = Streets
    save_student(ESPNet(len(facts.classes), Normalization(facts.mean, facts.std), p=1, q=1), directory, {})
    return directory / "student.safetensors"
