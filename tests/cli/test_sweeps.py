"""Sweeps by Optuna and in several processes: what fails is seen, and what is killed goes on, with no trial lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from filelock import FileLock
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from segkd.train.run_folder import RunFolder
from segkd.utils.files import exclusive_lock
from tests.helpers.commands import Command, in_own_process, start_process

BATCHES = 2
TINY = (
    f"dataset.images={2 * BATCHES}",
    "student.p=1",
    "student.q=1",
    "data.batch_size=2",
    "data.workers=0",
    "data.crop_size=[128,128]",
    "model@teacher=espnet",
    "check_teacher=off",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1",
    "trainer.progress=false",
    "wandb.mode=disabled",
)
WEIGHT = "loss.pixelwise.weight"


class Told(NamedTuple):
    """A trial in the study's file."""

    number: int
    state: str
    weight: float | None
    score: float | None


def told(sweep: Path) -> list[Told]:
    """All trials, also while the sweep is at work."""
    query = f"""SELECT number, state, param_value, value FROM trials
        LEFT JOIN trial_params ON trials.trial_id = trial_params.trial_id AND param_name = '{WEIGHT}'
        LEFT JOIN trial_values ON trials.trial_id = trial_values.trial_id ORDER BY number"""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{sweep / 'study.db'}?mode=ro", uri=True)) as study:
        return [Told(*row) for row in study.execute(query).fetchall()]
    return []


def assert_sound(sweep: Path, trials: int) -> None:
    """Every number once, no values twice, and in each number's folder a whole run with its trial's values and score."""
    found = told(sweep)
    assert [(trial.number, trial.state) for trial in found] == [(number, "COMPLETE") for number in range(trials)]
    assert len({trial.weight for trial in found}) == trials
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == sorted(str(n) for n in range(trials))
    for trial in found:
        folder = sweep / str(trial.number)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["loss"]["pixelwise"]["weight"] == trial.weight
        assert json.loads((folder / "summary.json").read_text())["val_miou"] == trial.score
        assert (folder / "student.safetensors").exists()


def search(teacher: Path, trials: int, *more: str) -> tuple[str, ...]:
    asked = (f"teacher.checkpoint={teacher}", f"hydra.sweeper.n_trials={trials}")
    return ("-m", "sweep=optuna", *TINY, *asked, *more)


@pytest.mark.parametrize(
    ("asked", "group", "extra"),
    [
        ("sweep=optuna", "sweeper", "hpo"),
        ("hydra/launcher=joblib", "launcher", "launchers"),
        ("hydra/launcher=submitit_local", "launcher", "launchers"),
        ("hydra/launcher=submitit_slurm", "launcher", "launchers"),
    ],
)
def test_a_missing_extra_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, group: str, extra: str
) -> None:
    Plugins.instance()  # they announce themselves once
    name = asked.partition("=")[2]
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{name}.yaml")
    result = command("train", "-m", *TINY, asked, "seed=0,1", f"output_dir={tmp_path / 'sweep'}")
    assert result.code == 2
    assert result.err == (
        f"segkd: hydra/{group}={name} needs a package that is not installed; pip install 'segkd[{extra}]'\n"
    )
    assert not (tmp_path / "sweep").exists()


class TestOptuna:
    def test_it_goes_on_when_asked_to(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        sweep = tmp_path / "sweep"
        result = command("train", *search(teacher_file, 2, f"output_dir={sweep}"))
        assert result.code == 0, result.err
        assert_sound(sweep, 2)
        best = max(told(sweep), key=lambda trial: trial.score or 0)
        last = result.out.splitlines()[-1]
        assert last.startswith(f"2 trials; best val mIoU {100 * (best.score or 0):.2f}: loss.pairwise.weight=")
        assert last.endswith(f" {WEIGHT}={best.weight} → {sweep / str(best.number)}")
        assert yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_value"] == best.score

        refused = command("train", *search(teacher_file, 3, f"output_dir={sweep}"))
        assert refused.code == 2
        assert f"{sweep} already holds a sweep of 2 trials; choose another output_dir" in refused.err
        again = command("train", *search(teacher_file, 4, f"output_dir={sweep}", "resume=auto"))
        assert again.code == 0, again.err
        assert f"2 trials of {sweep} are done; 2 are left" in again.err
        assert_sound(sweep, 4)
        assert told(sweep)[:2] == [trial for trial in told(sweep) if trial.number < 2]

    def test_the_same_seed_again_would_double_trials(
        self, command: Command, teacher_file: Path, tmp_path: Path
    ) -> None:
        """The control of what `go_on` adds to the seed: with as much less, the sweep draws what it drew."""
        sweep = tmp_path / "sweep"
        for trials, seed in ((1, 1), (2, 0)):
            seeded = (f"hydra.sweeper.sampler.seed={seed}", f"output_dir={sweep}", "resume=auto")
            assert command("train", *search(teacher_file, trials, *seeded)).code == 0
        with pytest.raises(AssertionError):
            assert_sound(sweep, 2)
        assert len({trial.weight for trial in told(sweep)}) == 1

    def test_no_failed_trial_is_taken(
        self, command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep, finish = tmp_path / "sweep", RunFolder.finish

        def finish_worse(run: RunFolder, *arguments: Any) -> float:
            if run.directory.name == "0":
                raise RuntimeError("planted")
            return finish(run, *arguments) if run.directory.name != "1" else float("nan")

        monkeypatch.setattr(RunFolder, "finish", finish_worse)
        result = command("train", *search(teacher_file, 3, f"output_dir={sweep}"))
        assert result.code == 1, result.err
        assert [trial.state for trial in told(sweep)] == ["FAIL", "FAIL", "COMPLETE"]
        assert "RuntimeError: planted" in (sweep / "0" / "failure.txt").read_text()
        assert "is NaN" in (sweep / "1" / "failure.txt").read_text()
        assert not (sweep / "2" / "failure.txt").exists()
        assert "3 trials, 2 failed; best val mIoU" in result.out
        assert result.out.endswith(f"→ {sweep / '2'}\n")

    def test_all_fail(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        asked = search(teacher_file, 2, f"output_dir={tmp_path / 'sweep'}", "data.crop_size=[8,8]")
        result = command("train", *asked)
        assert result.code == 1
        assert result.err.count("data.crop_size=[8, 8] is less than the 32 pixels") == 2
        assert result.err.endswith(
            "segkd: no trial of the sweep has succeeded; each has its reason in its failure.txt\n"
        )
        assert "Traceback" not in result.err

    def test_it_waits_for_who_is_at_work(
        self, command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sweep that still goes on, and a job that outlived the sweep that was killed."""
        sweep = tmp_path / "sweep"
        (sweep / "0").mkdir(parents=True)
        awaited = {str(folder / ".lock"): threading.Event() for folder in (sweep, sweep / "0")}
        acquire = FileLock.acquire

        def acquire_as_told(lock: FileLock, timeout: float | None = None) -> object:
            if timeout is None:
                awaited[lock.lock_file].set()
            return acquire(lock, timeout)

        def at_work(lock: str, ready: threading.Event) -> None:
            with exclusive_lock(Path(lock), ""):
                ready.set()
                awaited[lock].wait(100)

        for lock in awaited:
            ready = threading.Event()
            threading.Thread(target=at_work, args=(lock, ready)).start()
            assert ready.wait(10)
        monkeypatch.setattr(FileLock, "acquire", acquire_as_told)
        result = command("train", *search(teacher_file, 1, f"output_dir={sweep}"))
        assert result.code == 0, result.err
        assert f"waiting for another process that is at work on the sweep in {sweep}" in result.err
        assert f"waiting for another process that is at work in {sweep / '0'}" in result.err
        assert_sound(sweep, 1)

    def test_kept_nowhere_is_refused(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        asked = search(teacher_file, 1, "hydra.sweeper.storage=null", f"output_dir={tmp_path / 'sweep'}")
        result = command("train", *asked)
        assert result.code == 2
        assert "hydra.sweeper.storage=null" in result.err


LONG = ("trainer.max_epochs=8", "trainer.validate_every=8", "checkpoint.every_minutes=null")


@pytest.mark.process
def test_killed_in_the_middle_no_trial_is_lost_or_doubled(command: Command, teacher_file: Path, tmp_path: Path) -> None:
    asked = search(teacher_file, 4, *LONG, "output_dir=sweep", "resume=auto")
    sweep = tmp_path / "sweep"
    saved = 2 * BATCHES
    killed = in_own_process("train", *asked, cwd=tmp_path, fault=f"0:{8 * BATCHES + saved + 1}:SIGKILL")
    assert killed.code == -signal.SIGKILL, killed.err
    before = told(sweep)
    assert [trial.state for trial in before] == ["COMPLETE", "RUNNING"]

    ended = in_own_process("train", *asked, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "1 trials of sweep are done; 3 are left" in ended.err
    assert f"continuing from {sweep / '1' / 'last.ckpt'}, step {saved} of {8 * BATCHES}" in ended.err
    assert_sound(sweep, 4)
    assert told(sweep)[0] == before[0]
    assert told(sweep)[1].weight == before[1].weight
    # The trial that was killed found what it would have found.
    config = yaml.safe_load((sweep / "1" / "config.yaml").read_text())
    weights = [f"loss.{name}.weight={config['loss'][name]['weight']}" for name in ("pixelwise", "pairwise")]
    losses = ("loss=[cross_entropy,pixelwise,pairwise]", *weights)
    whole = tmp_path / "whole"
    alone = command("train", *TINY, *LONG, f"teacher.checkpoint={teacher_file}", *losses, f"output_dir={whole}")
    assert alone.code == 0, alone.err
    for file in ("student.safetensors", "metrics.csv"):
        assert (whole / file).read_bytes() == (sweep / "1" / file).read_bytes()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    "launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2")]
)
def test_killed_again_and_again(teacher_file: Path, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """At random moments, by one job and by two at once, whose processes outlive the one that is killed."""
    asked = search(teacher_file, 6, *LONG, *launcher, "output_dir=sweep", "resume=auto")
    rng, sweep, left = random.Random(0), tmp_path / "sweep", []
    for kill in range(5):
        process = start_process("train", *asked, cwd=tmp_path)
        while len(told(sweep)) <= kill and process.poll() is None:
            time.sleep(0.01)
        time.sleep(2 * rng.random())
        left += children(process.pid)
        process.kill()
        process.wait()
    ended = in_own_process("train", *asked, cwd=tmp_path)
    for number in left:  # joblib's processes wait minutes for more to do
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    assert ended.code == 0, ended.err
    assert_sound(sweep, 6)


def children(number: int) -> list[int]:
    """Of a process; none of one that is gone."""
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return []


@pytest.mark.process
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_in_other_processes_a_failing_job_ends_alone(command: Command, tmp_path: Path, launcher: str) -> None:
    alone = [argument for argument in TINY if not argument.startswith("model@teacher")]
    sweep = tmp_path / "sweep"
    (sweep / "0" / "config.yaml").mkdir(parents=True)  # where its config should go
    asked = (*alone, "seed=0,1", f"output_dir={sweep}")
    ended = in_own_process("train", "-m", *asked, f"hydra/launcher={launcher}", cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert "IsADirectoryError" in (sweep / "0" / "failure.txt").read_text()
    assert (sweep / "1" / "student.safetensors").exists()
    assert not (sweep / "1" / "failure.txt").exists()
    before = (sweep / "1" / "summary.json").read_bytes()

    (sweep / "0" / "config.yaml").rmdir()
    mended = command("train", "-m", *asked, "resume=auto")
    assert mended.code == 0, mended.err
    assert (sweep / "0" / "student.safetensors").exists()
    assert not (sweep / "0" / "failure.txt").exists()
    assert f"{sweep / '1'} has nothing left to do" in mended.err
    assert (sweep / "1" / "summary.json").read_bytes() == before
