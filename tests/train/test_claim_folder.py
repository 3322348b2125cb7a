"""A run has its folder to itself, and a start that is refused leaves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.train.main import train
from segkd.utils.files import exclusive_lock
from tests.helpers.commands import Command
from tests.helpers.training import TINY_TRAINING

SHORT = (*TINY_TRAINING, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")


@contextmanager
def holding(lock: Path) -> Iterator[None]:
    """Another process that is at work in the folder of the lock."""
    program = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def list_files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_another_training_in_the_folder(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with holding(run / ".lock"):
        for arguments in ((), ("resume=auto",)):
            refused = command("train", *SHORT, *arguments, f"output_dir={run}")
            assert refused.code == 2
            assert refused.err.endswith(
                f"segkd: another training is at work in {run}; wait for it, or give another output_dir\n"
            )
        assert list_files(run) == [".lock"]
        assert command("train", *SHORT, f"output_dir={run}", "dry_run=true").code == 0
    free = command("train", *SHORT, f"output_dir={run}")  # the lock of a killed process holds nobody up
    assert free.code == 0, free.err
    assert not (run / ".lock").exists()
    again = command("train", *SHORT, f"output_dir={run}")
    assert again.code == 2
    assert "already holds a run" in again.err
    longer = command("train", *SHORT, f"output_dir={run}", "resume=auto", "trainer.max_epochs=2")
    assert longer.code == 0, longer.err
    shorter = command("train", *SHORT, f"output_dir={run}", "resume=auto")
    assert shorter.code == 2
    assert "has trained 2 steps, and trainer.max_epochs=1 asks for 1; give trainer.max_epochs=2 or more" in shorter.err


def test_lock_is_refused_within_a_process(tmp_path: Path) -> None:
    def hold() -> None:
        with exclusive_lock(tmp_path / ".lock", "", "refused"):
            held.set()
            done.wait(10)

    held, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with pytest.raises(UserError, match="refused"), exclusive_lock(tmp_path / ".lock", "", "refused"):
        pass
    done.set()
    thread.join()
    assert list_files(tmp_path) == []


@pytest.mark.parametrize("folder", ["new", "parent/new", "kept/new"])
def test_a_refused_start_leaves_nothing(command: Command, tmp_path: Path, folder: str) -> None:
    (tmp_path / "kept").mkdir()
    refused = command("train", *SHORT, "data.batch_size=100", f"output_dir={tmp_path / folder}")
    assert refused.code == 2
    assert list_files(tmp_path) == ["kept"]


def test_resume_without_a_folder(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = command("train", *SHORT, "resume=auto")
    assert refused.code == 2
    assert refused.err == (
        "segkd: resume=auto continues the run in output_dir, and none is given; give output_dir=DIR\n"
    )
    assert list_files(tmp_path) == []


def test_default_folders_and_names(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder has the time to the microsecond; a name comes from the experiment or the folder."""
    monkeypatch.chdir(tmp_path)
    experiments = tmp_path / "mine" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "tiny.yaml").write_text("# @package _global_\nseed: 3\n")
    names = {
        (): r"runs/run/[\d_-]{19}-\d{6}",
        ("--config-dir", str(tmp_path / "mine"), "experiment=tiny"): r"runs/tiny/[\d_-]{19}-\d{6}",
        ("output_dir=runs/farm",): "runs/farm",
        ("output_dir=runs/plan/4",): "runs/plan/4",
        ("output_dir=runs/other", "name=mine"): "runs/other",
    }
    found = []
    for arguments, pattern in names.items():
        result = command("train", *arguments, *SHORT)
        assert result.code == 0, result.err
        assert re.search(pattern, result.out), result.out
        config = next(path for path in (tmp_path / "runs").rglob("config.yaml") if str(path.parent) in result.out)
        found.append(yaml.safe_load(config.read_text())["name"])
        assert result.out.startswith(f"{found[-1]}: val mIoU")
    assert found == ["run", "tiny", "farm", "plan/4", "mine"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_in_the_first_step_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Distiller, "forward_networks", fail)
    assert command("train", *SHORT, f"output_dir={tmp_path / 'run'}").code != 0
    assert list_files(tmp_path) == []


def test_a_crash_leaves_its_folder(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the removal."""
    monkeypatch.setattr(Distiller, "forward_networks", lambda *_: 1 / 0)
    assert command("train", *SHORT, f"output_dir={tmp_path / 'run'}").code == 1
    assert (tmp_path / "run" / "config.yaml").exists()


def test_call_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    with pytest.raises(UserError, match=r"python -m segkd\.train"):
        train(OmegaConf.create({}))
