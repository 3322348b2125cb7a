"""A logger may fail, hang, exit and alter what the process shares: the run goes on, with the same bits."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers.logger import Logger

import segkd.train.loggers.build
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.train.loggers.guarded import GuardedLogger
from segkd.types import Batch
from segkd.utils.plugins import VARIABLE
from tests.helpers import own_parts
from tests.helpers.commands import Command, Result
from tests.helpers.own_parts import FaultyLogger, alter_everything
from tests.helpers.training import TINY_TRAINING

PLUGIN = "tests.helpers.own_parts"
REASONS = {
    "raises": "ConnectionError: the server is down",
    "exits": "SystemExit(3)",
    "interrupts": "KeyboardInterrupt()",
}


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    own_parts.released.clear()
    yield
    own_parts.released.set()


def guard(tmp_path: Path, fault: str = "none") -> tuple[GuardedLogger, FaultyLogger]:
    made: list[FaultyLogger] = []

    def build() -> Logger:
        made.append(FaultyLogger(str(tmp_path), fault))
        return made[0]

    return GuardedLogger("Faulty", build, 0.2), made[0]


@pytest.mark.parametrize("where", ["log_metrics", "save"])
@pytest.mark.parametrize("how", ["raises", "exits", "interrupts", "hangs"])
def test_the_first_fault_is_told_once_and_ends_the_logger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str, how: str
) -> None:
    guarded, logger = guard(tmp_path, f"{where} {how}")
    for step in range(3):
        guarded.log_metrics({"a": 1.0}, step)
        guarded.save()
    guarded.close("success")
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert message.startswith("Faulty failed and is disabled from here on (")
    assert REASONS.get(how, "no answer in 0.2 s") in message
    assert [step for step, _ in logger.rows] == [0]
    assert logger.ended == ["failed"]
    assert not guarded.is_active
    guarded.experiment.add_image("does", "nothing")
    guarded.whatever_it_had(1)


@pytest.mark.parametrize("how", ["raises", "exits", "interrupts", "hangs"])
def test_a_fault_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    guarded = GuardedLogger("Faulty", lambda: FaultyLogger(str(tmp_path), f"init {how}"), 0.2)
    assert [REASONS.get(how, "no answer in 0.3 s") in record.getMessage() for record in caplog.records] == [True]
    guarded.log_metrics({"a": 1.0}, 0)
    assert (guarded.is_active, guarded.name, guarded.log_dir) == (False, "", None)


def test_a_missing_package_is_the_users_mistake_at_the_start_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"Faulty cannot log: No module named 'own_server'; install it"):
        guard(tmp_path, "init lacks")
    guarded, _ = guard(tmp_path, "log_metrics lacks")
    guarded.log_metrics({}, 0)
    assert "disabled from here on" in caplog.text


def test_it_passes_for_the_logger_and_calls_it_in_one_thread(tmp_path: Path) -> None:
    guarded, logger = guard(tmp_path)
    assert isinstance(guarded, FaultyLogger)
    row = {"a": 1.0}
    for step in range(3):
        guarded.log_metrics(row, step)
    assert row == {"a": 1.0}  # the logger cleared its own copy
    assert (guarded.name, guarded.fault, len(logger.threads)) == ("faulty", "none", 1)
    guarded.finalize("success")  # of Lightning, after one of several loops
    assert logger.ended == []
    guarded.close("aborted")
    assert logger.ended == ["aborted"]


def read_shared() -> dict[str, Any]:
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "warnings": warnings.filters[:],
        "hooks": (sys.exit, sys.excepthook),
    }


@pytest.mark.parametrize("where", ["init", "log_metrics"])
def test_nothing_shared_is_altered(tmp_path: Path, where: str) -> None:
    before = read_shared()
    guarded, _ = guard(tmp_path, f"{where} alters")
    guarded.log_metrics({"a": 1.0}, 0)
    assert read_shared() == before
    assert guarded.is_active


def test_the_fault_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unguarded, each of these is altered."""
    before = read_shared()
    with segkd.train.loggers.guarded.unaltered_global_state():  # for the tests after this one
        alter_everything()
        after = read_shared()
        assert {name for name in before if before[name] != after[name]} == {*before}


@pytest.fixture(scope="module")
def plain() -> dict[str, bytes]:
    """The weights of a run without other loggers, once it has been made."""
    return {}


class TestRun:
    @pytest.fixture(autouse=True)
    def _setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The plugin, a short patience, and batches that depend on the process's random numbers."""
        monkeypatch.setenv(VARIABLE, PLUGIN)
        monkeypatch.setattr(segkd.train.loggers.build, "TIMEOUT", 2.0)
        step = Distiller.training_step

        def noisy(distiller: Distiller, batch: Batch, index: int) -> None:
            step(distiller, batch._replace(images=batch.images.roll(int(torch.randint(1, 99, ())), -1)), index)

        monkeypatch.setattr(Distiller, "training_step", noisy)

    @pytest.fixture
    def train(self, command: Command, tmp_path: Path) -> Callable[..., tuple[Result, bytes | None]]:
        def run(*arguments: str) -> tuple[Result, bytes | None]:
            short = ("trainer.max_epochs=1", "trainer.limit_val_batches=1", "check_teacher=off")
            result = command("train", *TINY_TRAINING, *short, *arguments, f"output_dir={tmp_path / 'run'}")
            weights = tmp_path / "run" / "student.safetensors"
            return result, weights.read_bytes() if weights.exists() else None

        return run

    @pytest.mark.parametrize(
        "fault", ["log_metrics alters", "init alters", "log_metrics hangs", "finalize exits", "log_metrics loses"]
    )
    def test_the_weights_are_the_same_bits(
        self, train: Callable[..., tuple[Result, bytes | None]], plain: dict[str, bytes], tmp_path: Path, fault: str
    ) -> None:
        if not plain:
            _, weights = train("logger=[csv]")
            assert weights is not None
            plain["weights"] = weights
            (tmp_path / "run").rename(tmp_path / "plain")
        asked = f"+logger.own={{_target_: {PLUGIN}.FaultyLogger, fault: {fault}}}"
        result, weights = train("logger=[csv]", asked)
        assert result.code == 0, result.err
        assert result.err.count("the logger 'own' failed") == (0 if "alters" in fault else 1)
        assert weights == plain["weights"]
        assert "FaultyLogger" in (tmp_path / "run" / "config.yaml").read_text()

    def test_without_the_guard_they_would_not_be(
        self,
        train: Callable[..., tuple[Result, bytes | None]],
        plain: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def alter_random_numbers(self: Logger, **row: Any) -> None:
            torch.manual_seed(7)

        monkeypatch.setattr(FaultyLogger, "log_metrics", alter_random_numbers)
        monkeypatch.setattr(segkd.train.loggers.build, "_start", lambda title, build, timeout: build())
        result, weights = train("logger=[csv]", f"+logger.own._target_={PLUGIN}.FaultyLogger")
        assert result.code == 0, result.err
        assert weights != plain["weights"]
