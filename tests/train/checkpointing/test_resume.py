"""A run that is stopped after any batch, and resumed, ends as if it had not been stopped: in weights, curves and result."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import segkd.train.callbacks.resumable_checkpoint
import segkd.train.checkpointing.resume
from segkd.data.samplers import DistributedShuffleSampler
from segkd.distillation.distiller import Distiller
from segkd.train import run_folder
from segkd.train.callbacks.resumable_checkpoint import ResumableCheckpoint
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.train.checkpointing.state import count_steps
from segkd.types import Batch
from tests.helpers.commands import Command, Result, in_own_process

BATCHES, EPOCHS = 3, 2
LAST = BATCHES * EPOCHS
TINY = (
    f"dataset.images={2 * BATCHES}",
    f"trainer.max_epochs={EPOCHS}",
    "student.p=1",
    "student.q=1",
    "trainer.ema=0.7",
    "trainer.limit_val_batches=2",
    "data.batch_size=2",
    "data.workers=0",
    "data.crop_size=[128,128]",
    "data.jitter.hue=0.1",
    "trainer=cpu",
    "trainer.progress=false",
    "check_teacher=off",
    "wandb.mode=disabled",
)

Train = Callable[..., Result]


@pytest.fixture
def train(command: Command, teacher_file: Path) -> Train:
    """`train(folder, …)`: a student with a teacher, a critic and a moving average."""

    def run(directory: Path, *arguments: str) -> Result:
        taught = (
            "model@teacher=espnet",
            f"teacher.checkpoint={teacher_file}",
            "adversary=holistic",
            "adversary.discriminator.width=4",
        )
        losses = "loss=[cross_entropy,pixelwise]"
        return command("train", *TINY, *taught, losses, f"output_dir={directory}", *arguments)

    return run


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch also draws from the process's random numbers, as a foreign network's dropout does."""
    step = Distiller.training_step

    def noisy(self: Distiller, batch: Batch, batch_idx: int) -> None:
        step(self, batch._replace(images=batch.images.roll(int(torch.randint(1, 9, ())), -1)), batch_idx)

    monkeypatch.setattr(Distiller, "training_step", noisy)


def stop_at(monkeypatch: pytest.MonkeyPatch, steps: int, validation: bool = False) -> None:
    """Send this process a SIGTERM after so many batches, or in the validation that comes then."""
    name = "on_validation_batch_start" if validation else "before_train_batch"
    hook = getattr(ResumableCheckpoint, name)

    def stopping(self: ResumableCheckpoint, trainer: Any, module: Any, *rest: Any) -> None:
        if int(module.step_count) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        hook(self, trainer, module, *rest)

    monkeypatch.setattr(ResumableCheckpoint, name, stopping)


def state(run: Path) -> dict[str, Any]:
    """What last.ckpt holds, but for the seconds that it took."""
    held: dict[str, Any] = torch.load(run / "last.ckpt", weights_only=True)
    assert held.pop("seconds") > 0
    return held


def assert_same(ours: Any, theirs: Any) -> None:
    """Two values, to the last bit."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def assert_same_run(run: Path, whole: Path) -> None:
    assert_same(state(run), state(whole))
    for file in ("student.safetensors", "metrics.csv"):
        assert (run / file).read_bytes() == (whole / file).read_bytes()


def stopped_and_resumed(
    train: Train, run: Path, monkeypatch: pytest.MonkeyPatch, steps: int, *arguments: str, validation: bool = False
) -> Result:
    with monkeypatch.context() as patch:
        stop_at(patch, steps, validation)
        stopped = train(run, *arguments)
    assert stopped.code == 143, stopped.err
    assert f"stopped by SIGTERM at step {steps}" in stopped.err
    assert int(state(run)["state_dict"]["step_count"]) == steps
    resumed = train(run, *arguments, "resume=auto")
    assert resumed.code == 0, resumed.err
    assert f"resuming from {run / 'last.ckpt'}, step {steps} of {LAST}" in resumed.err
    took = torch.load(run / "last.ckpt", weights_only=True)["seconds"]
    assert json.loads((run / "summary.json").read_text())["seconds"] >= round(took, 1)
    return resumed


def check_every_stop(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: list[tuple[int, bool]], *arguments: str
) -> None:
    assert train(tmp_path / "whole", *arguments).code == 0
    for steps, validation in stops:
        run = tmp_path / f"{steps}_{validation}"
        stopped_and_resumed(train, run, monkeypatch, steps, *arguments, validation=validation)
        assert_same_run(run, tmp_path / "whole")


def test_stopped_within_an_epoch_and_in_its_validation(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_every_stop(train, tmp_path, monkeypatch, [(1, False), (BATCHES, True), (LAST - 1, False)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_after_every_batch(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    stops = [*((steps, False) for steps in range(LAST)), (BATCHES, True)]
    check_every_stop(train, tmp_path, monkeypatch, stops, f"data.workers={workers}")
    # In its very last validation it has only that left, which then is one by itself, and writes no further checkpoint.
    run = tmp_path / "last"
    stopped_and_resumed(train, run, monkeypatch, LAST, f"data.workers={workers}", validation=True)
    assert_same({**state(run), "epochs": EPOCHS}, state(tmp_path / "whole"))
    assert (run / "student.safetensors").read_bytes() == (tmp_path / "whole/student.safetensors").read_bytes()


def forget_optimizers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(segkd.train.callbacks.resumable_checkpoint, "restore_optimizers", lambda *_: None)


def forget_random_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "set_rng_state", lambda _: None)


def forget_the_place(patch: pytest.MonkeyPatch) -> None:
    made = DistributedShuffleSampler.__init__
    patch.setattr(DistributedShuffleSampler, "__init__", lambda self, *a: made(self, *a[:-1]))


def forget_the_average(patch: pytest.MonkeyPatch) -> None:
    loaded = segkd.train.checkpointing.resume.load_state_dict_strict

    def load(distiller: Distiller, weights: dict[str, Any], path: Path) -> None:
        first = {key: value.clone() for key, value in distiller.state_dict().items() if key.startswith("ema.")}
        loaded(distiller, {**weights, **first}, path)

    patch.setattr(segkd.train.checkpointing.resume, "load_state_dict_strict", load)


def test_the_comparison_finds_what_is_not_restored(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        assert train(tmp_path / "stopped").code == 143
    for forget in (forget_optimizers, forget_random_numbers, forget_the_place, forget_the_average):
        run = tmp_path / forget.__name__
        with monkeypatch.context() as patch:
            forget(patch)
            assert train(run, f"resume={tmp_path / 'stopped/last.ckpt'}").code == 0
        with pytest.raises(AssertionError):
            assert_same(state(run), state(tmp_path / "whole"))


def test_a_full_disk_does_not_end_the_run(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path / "whole").code == 0
    tried, write = [], CheckpointFiles.write

    def full_at_first(self: CheckpointFiles, content: dict[str, Any]) -> None:
        tried.append(count_steps(content))
        if len(tried) <= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, content)

    monkeypatch.setattr(CheckpointFiles, "write", full_at_first)
    monkeypatch.setattr(
        segkd.train.callbacks.resumable_checkpoint, "RETRY_SECONDS", 0.0
    )  # a minute, which this run does not last
    run = tmp_path / "run"
    result = train(run)
    assert result.code == 0, result.err
    assert result.err.count("cannot be written (No space left on device)") == 3
    assert tried == [3, 4, 5, 6]  # at the epoch's end, and then at each next step until there is room
    assert_same_run(run, tmp_path / "whole")


def test_no_room_for_the_result(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(run_folder, "save_student", full)
        result = train(run)
    assert result.code == 2
    assert result.err.endswith(
        f"segkd: no space is left for {run}; free some, and continue with resume=auto output_dir={run}\n"
    )
    assert train(run, "resume=auto").code == 0
    assert (run / "summary.json").exists()


def test_the_newest_whole_one_is_taken(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    anew = train(run, "resume=auto", "checkpoint.every_steps=2")
    assert anew.code == 0, anew.err
    assert f"nothing to resume in {run}; starting a new run" in anew.err
    for arguments, said in (
        (("resume=auto", "seed=1"), "is of another run: seed was 0 and is 1. Resume with the same"),
        (("resume=auto", "loss=[cross_entropy]"), "loss was ['cross_entropy', 'pixelwise'] and is ['cross_entropy']"),
        (("resume=auto", "data.batch_size=3"), "data.batch_size was 2 and is 3; batches of an epoch was 3 and is 2"),
        (("resume=auto", "dataset.scene_seed=9"), "dataset.scene_seed was 0 and is 9"),
    ):
        refused = train(run, *arguments)
        assert refused.code == 2
        assert said in refused.err
    (run / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:-9])
    refused = train(run, f"resume={run / 'last.ckpt'}")
    assert refused.code == 2
    assert "differs from the hash beside it and is damaged; resume=auto takes" in refused.err
    resumed = train(run, "resume=auto")
    assert resumed.code == 0, resumed.err
    assert f"resuming from {run / 'previous.ckpt'}, step 4 of {LAST} (last.ckpt is damaged)" in resumed.err
    (run / "previous.ckpt").unlink()
    (run / "last.ckpt").write_bytes(b"")
    refused = train(run, "resume=auto")
    assert refused.code == 2
    assert f"no checkpoint in {run} is valid" in refused.err


def test_seconds_are_those_of_all_its_parts(tmp_path: Path) -> None:
    before = {"state_dict": {"step_count": 3}, "seconds": 1000.0}
    resumed = ResumableCheckpoint(CheckpointFiles(tmp_path), state=before)
    assert 1000 < resumed.elapsed < 1010
    assert ResumableCheckpoint(CheckpointFiles(tmp_path)).elapsed < 10


def test_saved_every_so_many_steps_and_minutes(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, write = [], CheckpointFiles.write
    monkeypatch.setattr(
        CheckpointFiles, "write", lambda self, content: saved.append(count_steps(content)) or write(self, content)
    )
    for arguments, expected in (
        (("checkpoint.every_steps=2",), [2, 3, 4, 6]),
        (("checkpoint.every_steps=5", "checkpoint.every_minutes=null"), [3, 5, 6]),
        (("checkpoint.every_minutes=1e-9",), [0, 1, 2, 3, 4, 5, 6]),
    ):
        saved.clear()
        assert train(tmp_path / str(len(expected)), *arguments).code == 0
        assert saved == expected


@pytest.mark.slow
@pytest.mark.process
def test_killed_again_and_again(tmp_path: Path, teacher_file: Path) -> None:
    """Without notice, at random moments: it goes on from at most one interval before, and ends the same."""
    steps = 20 * LAST
    asked = (*TINY, "checkpoint.every_steps=1", "loss=[cross_entropy]", f"trainer.max_epochs={20 * EPOCHS}")
    assert in_own_process("train", *asked, "output_dir=whole", cwd=tmp_path).code == 0
    rng, saved = random.Random(0), 0
    for more in (2, 20, 20):
        # The process itself sends the signal: one that watched it might look away until it had ended.
        fault = f"0:{more}:SIGKILL:{0.1 * rng.random()}"
        killed = in_own_process("train", *asked, "output_dir=run", "resume=auto", cwd=tmp_path, fault=fault)
        assert killed.code == -signal.SIGKILL, killed.err
        before, saved = saved, count_steps(newest(tmp_path / "run"))
        assert before + more <= saved < steps
    ended = in_own_process("train", *asked, "output_dir=run", "resume=auto", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert f"step {saved} of {steps}" in ended.err
    assert count_steps(state(tmp_path / "run")) == steps
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def newest(run: Path) -> dict[str, Any]:
    """What the newest whole checkpoint holds."""
    path = CheckpointFiles(run).latest_valid()
    assert path is not None
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", ["data.unlabelled", "data.something_else"])
def test_checkpoint_of_version_0_1_0_is_resumed(train: Train, tmp_path: Path, key: str) -> None:
    """Its fingerprint has the key `data.unlabelled` and no names of images; any other unknown key is of another run."""
    run = tmp_path / "run"
    assert train(run, "trainer.max_epochs=1").code == 0
    held = torch.load(run / "last.ckpt", weights_only=True)
    held["recipe"] = {key if name == "data.unlabeled" else name: value for name, value in held["recipe"].items()}
    del held["recipe"]["image names"]
    torch.save(held, tmp_path / "old.ckpt")
    result = train(tmp_path / "resumed", f"resume={tmp_path / 'old.ckpt'}")
    if key == "data.unlabelled":
        assert result.code == 0, result.err
        assert f"resuming from {tmp_path / 'old.ckpt'}, step {BATCHES} of {LAST}" in result.err
    else:
        assert result.code == 2
        assert "data.unlabeled was None and is False" in result.err
