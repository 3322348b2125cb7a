"""A run that is stopped after any batch, and resumed, ends as if it had not been stopped: in weights, curves and result."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import segkd.callbacks.last_checkpoint
import segkd.train
from commands import Command, Result
from segkd.callbacks.last_checkpoint import LastCheckpoint
from segkd.data.datamodule import ShuffledShard
from segkd.distiller import Distiller
from segkd.types import Batch

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
    "preflight=off",
    "wandb.mode=disabled",
)

Train = Callable[..., Result]


@pytest.fixture
def train(command: Command, teacher_file: Path) -> Train:
    """`train(folder, …)`: a student with a teacher, a critic and a moving average."""

    def run(directory: Path, *arguments: str) -> Result:
        taught = ("model@teacher=espnet", f"teacher.checkpoint={teacher_file}", "adversary=holistic", "adversary.discriminator.width=4")
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
    name = "on_validation_batch_start" if validation else "on_train_batch_start"
    hook = getattr(LastCheckpoint, name)

    def stopping(self: LastCheckpoint, trainer: Any, module: Any, *rest: Any) -> None:
        if int(module.step_count) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        hook(self, trainer, module, *rest)

    monkeypatch.setattr(LastCheckpoint, name, stopping)


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt", weights_only=True)  # type: ignore[no-any-return]


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
    assert f"continuing from {run / 'last.ckpt'}, step {steps} of {LAST}" in resumed.err
    return resumed


def check_every_stop(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: list[tuple[int, bool]], *arguments: str) -> None:
    assert train(tmp_path / "whole", *arguments).code == 0
    for steps, validation in stops:
        run = tmp_path / f"{steps}_{validation}"
        stopped_and_resumed(train, run, monkeypatch, steps, *arguments, validation=validation)
        assert_same_run(run, tmp_path / "whole")


def test_stopped_within_an_epoch_and_in_its_validation(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_every_stop(train, tmp_path, monkeypatch, [(1, False), (BATCHES, True), (LAST - 1, False)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_after_every_batch(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    stops = [*((steps, False) for steps in range(LAST)), (BATCHES, True), (LAST, True)]
    check_every_stop(train, tmp_path, monkeypatch, stops, f"data.workers={workers}")


def forget_optimizers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(segkd.callbacks.last_checkpoint, "restore_optimizers", lambda *_: None)


def forget_random_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "set_rng_state", lambda _: None)


def forget_the_place(patch: pytest.MonkeyPatch) -> None:
    made = ShuffledShard.__init__
    patch.setattr(ShuffledShard, "__init__", lambda self, *a: made(self, *a[:-1]))


def forget_the_average(patch: pytest.MonkeyPatch) -> None:
    loaded = segkd.resume.load_strictly

    def load(distiller: Distiller, weights: dict[str, Any], path: Path) -> None:
        first = {key: value.clone() for key, value in distiller.state_dict().items() if key.startswith("ema.")}
        loaded(distiller, {**weights, **first}, path)

    patch.setattr(segkd.resume, "load_strictly", load)


def test_the_comparison_finds_what_is_not_restored(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
