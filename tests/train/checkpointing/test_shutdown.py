"""Two processes, asked to stop or at fault: whichever is hit, all end with the right code, and the run can be resumed to the same bit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.helpers.commands import Result

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parents[2] / "helpers" / "fault_injection.py"
BATCHES, EPOCHS = 3, 2
LAST = BATCHES * EPOCHS
TINY = (
    f"dataset.images={2 * BATCHES}",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.devices=2",
    "trainer.accelerator=cpu",
    "trainer.ema=0.7",
    "trainer.limit_val_batches=2",
    "trainer.progress=false",
    "student.p=1",
    "student.q=1",
    "data.batch_size=2",
    "data.workers=0",
    "data.crop_size=[128,128]",
    "check_teacher=off",
    "wandb.mode=disabled",
    "loss=[cross_entropy,pixelwise]",
    "adversary=holistic",
    "adversary.discriminator.width=4",
    "model@teacher=espnet",
)


def run(directory: Path, teacher: Path, *arguments: str, launcher: tuple[str, ...] = (), **environment: str) -> Result:
    """The outcome, and no process of its session is left."""
    process = subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), *TINY, f"teacher.checkpoint={teacher}", f"output_dir={directory}", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    out, err = process.communicate(timeout=200)
    deadline = time.monotonic() + 10  # a process closes its files before it is gone
    while left := members(process.pid):
        assert time.monotonic() < deadline, (left, err)
        time.sleep(0.1)
    return Result(process.returncode, out, err)


def members(session: int) -> list[int]:
    """Processes of a session that are alive."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            alive.append(int(folder.name))
    return alive


def state(directory: Path) -> dict[str, Any]:
    return torch.load(directory / "last.ckpt", weights_only=True)  # type: ignore[no-any-return]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = state(one)["state_dict"], state(other)["state_dict"]
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


def stopped(directory: Path, teacher: Path, hits: str, code: int, step: int, **options: Any) -> None:
    result = run(directory, teacher, FAULT=hits, **options)
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert int(state(directory)["state_dict"]["step_count"]) == step
    assert len(state(directory)["processes"]) == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, teacher_file: Path) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    result = run(directory, teacher_file)
    assert result.code == 0, result.err
    return directory


def test_the_second_process_is_asked_to_stop(whole: Path, tmp_path: Path, teacher_file: Path) -> None:
    stopped(tmp_path, teacher_file, "1:3:SIGTERM", 143, 4)
    resumed = run(tmp_path, teacher_file, "resume=auto")
    assert resumed.code == 0, resumed.err
    assert same_weights(tmp_path, whole)
    assert (tmp_path / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hits", "code"),
    [("0:1:SIGTERM", 143), ("0:4:SIGTERM 1:4:SIGTERM", 143), ("0:0:SIGINT 1:0:SIGINT", 130), ("1:2:SIGTERM", 143)],
)
def test_any_process_is_asked_to_stop(whole: Path, tmp_path: Path, teacher_file: Path, hits: str, code: int) -> None:
    stopped(tmp_path, teacher_file, hits, code, int(hits[2]) + 1)
    resumed = run(tmp_path, teacher_file, "resume=auto")
    assert resumed.code == 0, resumed.err
    assert same_weights(tmp_path, whole)


@pytest.mark.slow
def test_the_comparison_finds_forgotten_statistics(whole: Path, tmp_path: Path, teacher_file: Path) -> None:
    stopped(tmp_path, teacher_file, "1:3:SIGTERM", 143, 4)
    resumed = run(tmp_path, teacher_file, "resume=auto", FORGET="restore_rank_state")
    assert resumed.code == 0, resumed.err
    assert not same_weights(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_at_fault_ends_the_job(tmp_path: Path, teacher_file: Path, rank: int) -> None:
    result = run(tmp_path / "run", teacher_file, FAULT=f"{rank}:2:raise")
    assert result.code not in (0, 2)
    assert "ZeroDivisionError: this process is at fault" in result.err


def test_torchrun_gives_the_devices(whole: Path, tmp_path: Path, teacher_file: Path) -> None:
    """One run, of the processes that torchrun has started; the weights are those of two devices that are asked for."""
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29533")
    result = run(tmp_path / "run", teacher_file, "trainer.devices=null", launcher=launcher)
    assert result.code == 0, result.err
    assert result.out.count("val mIoU") == 1
    assert "sync_dist=True" not in result.err
    assert same_weights(tmp_path / "run", whole)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["devices"] == 2
