"""Sweeps by Optuna and in several processes: failures are reported, and a killed sweep resumes with no trial lost or repeated."""

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


class Trial(NamedTuple):
    """A trial in the file of the study."""

    number: int
    state: str
    weight: float | None
    score: float | None


def read_trials(sweep: Path) -> list[Trial]:
    """Return all trials, also while the sweep is running."""
    query = f"""SELECT number, state, param_value, value FROM trials
        LEFT JOIN trial_params ON trials.trial_id = trial_params.trial_id AND param_name = '{WEIGHT}'
        LEFT JOIN trial_values ON trials.trial_id = trial_values.trial_id ORDER BY number"""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{sweep / 'study.db'}?mode=ro", uri=True)) as study:
        return [Trial(*row) for row in study.execute(query).fetchall()]
    return []


def assert_sound(sweep: Path, trials: int) -> None:
    """Check that numbers and values are unique, and that each folder has a complete run with the values and score of its trial."""
    done = read_trials(sweep)
    assert [(trial.number, trial.state) for trial in done] == [(number, "COMPLETE") for number in range(trials)]
    assert len({trial.weight for trial in done}) == trials
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == sorted(str(n) for n in range(trials))
    for trial in done:
        folder = sweep / str(trial.number)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["loss"]["pixelwise"]["weight"] == trial.weight
        assert json.loads((folder / "summary.json").read_text())["val_miou"] == trial.score
        assert (folder / "student.safetensors").exists()


def build_search_arguments(teacher: Path, trials: int, *overrides: str) -> tuple[str, ...]:
    arguments = (f"teacher.checkpoint={teacher}", f"hydra.sweeper.n_trials={trials}")
    return ("-m", "sweep=optuna", *TINY, *arguments, *overrides)


@pytest.mark.parametrize(
    ("arguments", "group", "extra"),
    [
        ("sweep=optuna", "sweeper", "hpo"),
        ("hydra/launcher=joblib", "launcher", "launchers"),
        ("hydra/launcher=submitit_local", "launcher", "launchers"),
        ("hydra/launcher=submitit_slurm", "launcher", "launchers"),
    ],
)
def test_missing_extra_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, group: str, extra: str
) -> None:
    Plugins.instance()  # they announce themselves once
    name = arguments.partition("=")[2]
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{name}.yaml")
    result = command("train", "-m", *TINY, arguments, "seed=0,1", f"output_dir={tmp_path / 'sweep'}")
    assert result.code == 2
    assert result.err == (
        f"segkd: hydra/{group}={name} needs a package that is not installed; "
        f"pip install 'segkd[{extra}]' (in a clone: pip install -e '.[{extra}]')\n"
    )
    assert not (tmp_path / "sweep").exists()


class TestOptuna:
    def test_sweep_is_resumed_only_on_request(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        sweep = tmp_path / "sweep"
        result = command("train", *build_search_arguments(teacher_file, 2, f"output_dir={sweep}"))
        assert result.code == 0, result.err
        assert_sound(sweep, 2)
        best = max(read_trials(sweep), key=lambda trial: trial.score or 0)
        last = result.out.splitlines()[-1]
        assert last.startswith(f"2 trials; best val mIoU {100 * (best.score or 0):.2f}: loss.pairwise.weight=")
        assert last.endswith(f" {WEIGHT}={best.weight} → {sweep / str(best.number)}")
        assert yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_value"] == best.score

        refused = command("train", *build_search_arguments(teacher_file, 3, f"output_dir={sweep}"))
        assert refused.code == 2
        assert f"{sweep} already holds a sweep of 2 trials; choose another output_dir" in refused.err
        again = command("train", *build_search_arguments(teacher_file, 4, f"output_dir={sweep}", "resume=auto"))
        assert again.code == 0, again.err
        assert f"2 trials of {sweep} are done; 2 are left" in again.err
        assert_sound(sweep, 4)
        assert read_trials(sweep)[:2] == [trial for trial in read_trials(sweep) if trial.number < 2]

    def test_same_seed_again_repeats_trials(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        """Negative control: with the offset of the seed undone, the resumed sweep draws the same values again."""
        sweep = tmp_path / "sweep"
        for trials, seed in ((1, 1), (2, 0)):
            seeded = (f"hydra.sweeper.sampler.seed={seed}", f"output_dir={sweep}", "resume=auto")
            assert command("train", *build_search_arguments(teacher_file, trials, *seeded)).code == 0
        with pytest.raises(AssertionError):
            assert_sound(sweep, 2)
        assert len({trial.weight for trial in read_trials(sweep)}) == 1

    def test_failed_trials_are_not_ranked(
        self, command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep, finish = tmp_path / "sweep", RunFolder.finish

        def finish_worse(run: RunFolder, *arguments: Any) -> float:
            if run.directory.name == "0":
                raise RuntimeError("planted")
            return finish(run, *arguments) if run.directory.name != "1" else float("nan")

        monkeypatch.setattr(RunFolder, "finish", finish_worse)
        result = command("train", *build_search_arguments(teacher_file, 3, f"output_dir={sweep}"))
        assert result.code == 1, result.err
        assert [trial.state for trial in read_trials(sweep)] == ["FAIL", "FAIL", "COMPLETE"]
        assert "RuntimeError: planted" in (sweep / "0" / "failure.txt").read_text()
        assert "is NaN" in (sweep / "1" / "failure.txt").read_text()
        assert not (sweep / "2" / "failure.txt").exists()
        assert "3 trials, 2 failed; best val mIoU" in result.out
        assert result.out.endswith(f"→ {sweep / '2'}\n")

    def test_sweep_of_failed_trials_fails(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        arguments = build_search_arguments(teacher_file, 2, f"output_dir={tmp_path / 'sweep'}", "data.crop_size=[8,8]")
        result = command("train", *arguments)
        assert result.code == 1
        assert result.err.count("data.crop_size=[8, 8] is less than the 32 pixels") == 2
        assert result.err.endswith(
            "segkd: no trial of the sweep has succeeded; each folder has the reason in failure.txt\n"
        )
        assert "Traceback" not in result.err

    def test_waits_for_running_processes(
        self, command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One holds the lock of the sweep, the other that of a job which outlived its killed sweep."""
        sweep = tmp_path / "sweep"
        (sweep / "0").mkdir(parents=True)
        awaited = {str(folder / ".lock"): threading.Event() for folder in (sweep, sweep / "0")}
        acquire = FileLock.acquire

        def acquire_and_signal(lock: FileLock, timeout: float | None = None) -> object:
            if timeout is None:
                awaited[lock.lock_file].set()
            return acquire(lock, timeout)

        def hold_lock(lock: str, ready: threading.Event) -> None:
            with exclusive_lock(Path(lock), ""):
                ready.set()
                awaited[lock].wait(100)

        for lock in awaited:
            ready = threading.Event()
            threading.Thread(target=hold_lock, args=(lock, ready)).start()
            assert ready.wait(10)
        monkeypatch.setattr(FileLock, "acquire", acquire_and_signal)
        result = command("train", *build_search_arguments(teacher_file, 1, f"output_dir={sweep}"))
        assert result.code == 0, result.err
        assert f"waiting for another process that is at work on the sweep in {sweep}" in result.err
        assert f"waiting for another process that is at work in {sweep / '0'}" in result.err
        assert_sound(sweep, 1)

    def test_sweep_without_storage_is_refused(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        arguments = build_search_arguments(
            teacher_file, 1, "hydra.sweeper.storage=null", f"output_dir={tmp_path / 'sweep'}"
        )
        result = command("train", *arguments)
        assert result.code == 2
        assert "hydra.sweeper.storage=null" in result.err


LONG = ("trainer.max_epochs=8", "trainer.validate_every=8", "checkpoint.every_minutes=null")


@pytest.mark.process
def test_killed_sweep_loses_and_repeats_no_trial(command: Command, teacher_file: Path, tmp_path: Path) -> None:
    arguments = build_search_arguments(teacher_file, 4, *LONG, "output_dir=sweep", "resume=auto")
    sweep = tmp_path / "sweep"
    saved = 2 * BATCHES
    killed = in_own_process("train", *arguments, cwd=tmp_path, fault=f"0:{8 * BATCHES + saved + 1}:SIGKILL")
    assert killed.code == -signal.SIGKILL, killed.err
    before = read_trials(sweep)
    assert [trial.state for trial in before] == ["COMPLETE", "RUNNING"]

    ended = in_own_process("train", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "1 trials of sweep are done; 3 are left" in ended.err
    assert f"resuming from {sweep / '1' / 'last.ckpt'}, step {saved} of {8 * BATCHES}" in ended.err
    assert_sound(sweep, 4)
    assert read_trials(sweep)[0] == before[0]
    assert read_trials(sweep)[1].weight == before[1].weight
    # The killed trial has the result of one that was not killed.
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
def test_sweep_survives_repeated_kills(teacher_file: Path, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """Kill at random moments, with one job and with two at once, whose processes outlive the killed one."""
    arguments = build_search_arguments(teacher_file, 6, *LONG, *launcher, "output_dir=sweep", "resume=auto")
    rng, sweep, left = random.Random(0), tmp_path / "sweep", []
    for kill in range(5):
        process = start_process("train", *arguments, cwd=tmp_path)
        while len(read_trials(sweep)) <= kill and process.poll() is None:
            time.sleep(0.01)
        time.sleep(2 * rng.random())
        left += list_children(process.pid)
        process.kill()
        process.wait()
    ended = in_own_process("train", *arguments, cwd=tmp_path)
    for number in left:  # joblib's processes wait minutes for more to do
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    assert ended.code == 0, ended.err
    assert_sound(sweep, 6)


def list_children(number: int) -> list[int]:
    """Return the child processes of a process; none if it has ended."""
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return []


@pytest.mark.process
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_failing_job_in_another_process_ends_alone(command: Command, tmp_path: Path, launcher: str) -> None:
    alone = [argument for argument in TINY if not argument.startswith("model@teacher")]
    sweep = tmp_path / "sweep"
    (sweep / "0" / "config.yaml").mkdir(parents=True)  # where its config should go
    arguments = (*alone, "seed=0,1", f"output_dir={sweep}")
    ended = in_own_process("train", "-m", *arguments, f"hydra/launcher={launcher}", cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert "IsADirectoryError" in (sweep / "0" / "failure.txt").read_text()
    assert (sweep / "1" / "student.safetensors").exists()
    assert not (sweep / "1" / "failure.txt").exists()
    before = (sweep / "1" / "summary.json").read_bytes()

    (sweep / "0" / "config.yaml").rmdir()
    resumed = command("train", "-m", *arguments, "resume=auto")
    assert resumed.code == 0, resumed.err
    assert (sweep / "0" / "student.safetensors").exists()
    assert not (sweep / "0" / "failure.txt").exists()
    assert f"{sweep / '1'} has nothing left to do" in resumed.err
    assert (sweep / "1" / "summary.json").read_bytes() == before
