"""Fixtures of all tests; see CONTRIBUTING for the kinds of tests."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segkd.data.streets import Streets
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNet
from segkd.models.student_io import save_student
from segkd.utils.plugins import VARIABLE
from tests.helpers.commands import Command, in_process

os.environ.setdefault("WANDB_MODE", "disabled")
# The networks are small, and two threads beside another process are many times slower; commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

_PUBLISHED_FILES = os.environ.get("SEGKD_TRUTH")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "command" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.command)
    if _PUBLISHED_FILES is None:
        for item in items:
            if item.get_closest_marker("published"):
                item.add_marker(pytest.mark.skip(reason="SEGKD_TRUTH is not set"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "SEGKD_TRUTH" in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} published-result tests were skipped: SEGKD_TRUTH does not name the folder of the authors' figures"
        )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logged_to_caplog() -> None:
    """Undo what an earlier command in this process did: Hydra disables loggers, and a command's log goes to stderr alone."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("segkd")]:
        logging.getLogger(name).disabled = False
    logging.getLogger("segkd").propagate = True


@pytest.fixture(autouse=True)
def _without_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the plugins that a test names, and the packages of its folder that it imports: tests reuse their names."""
    monkeypatch.delenv(VARIABLE, raising=False)
    path, modules = [*sys.path], {*sys.modules}
    yield
    os.environ.pop(VARIABLE, None)
    sys.path[:] = path
    for name in [name for name in sys.modules if name not in modules]:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is not None and Path(origin).is_relative_to(tmp_path_factory.getbasetemp()):
            del sys.modules[name]


@pytest.fixture
def third_party_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the networks of `tests.helpers.third_party_networks`, as SEGKD_PLUGINS names those of a user."""
    monkeypatch.setenv(VARIABLE, "tests.helpers.third_party_networks")


@pytest.fixture(scope="session")
def published_files() -> Path:
    """The folder of the authors' figures; a file that is missing there fails the test that wants it."""
    assert _PUBLISHED_FILES is not None
    return Path(_PUBLISHED_FILES).resolve()


@pytest.fixture
def normalization() -> Normalization:
    return Normalization((110.0, 110.0, 110.0), (55.0, 55.0, 55.0))


@pytest.fixture(scope="session")
def command() -> Command:
    """`command("train", "seed=1")` runs `python -m segkd.train seed=1` in this process."""
    return in_process


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ESPNet for CamVid's classes with random weights, as a run leaves it."""
    directory = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(1)
    network = ESPNet(len(Streets.classes), Normalization(Streets.mean, Streets.std), p=1, q=1)
    save_student(network, directory, {})
    return directory / "student.safetensors"
