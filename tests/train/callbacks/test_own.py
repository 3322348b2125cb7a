"""Callbacks of one's own: their state is resumed, they may end a training, and one that raises is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segkd.config.instantiate import Spec
from segkd.errors import UserError
from segkd.train.callbacks.own import OwnCallbacks
from segkd.utils.plugins import VARIABLE
from tests.helpers import own_parts
from tests.helpers.commands import Command, Result
from tests.helpers.own_parts import Counter, Raising
from tests.helpers.training import TINY_TRAINING, read_metrics

PLUGIN = "tests.helpers.own_parts"
Train = Callable[..., Result]


@pytest.fixture
def train(command: Command, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.setenv(VARIABLE, PLUGIN)

    def run(directory: Path, *arguments: str) -> Result:
        short = ("check_teacher=off", "logger=[csv]", "trainer.limit_val_batches=1")
        return command("train", *TINY_TRAINING, *short, f"output_dir={directory}", *arguments)

    return run


def use(name: str, kind: str, **arguments: Any) -> str:
    listed = "".join(f", {key}: {value}" for key, value in arguments.items())
    return f"+callbacks.{name}={{_target_: {PLUGIN}.{kind}{listed}}}"


def read_state(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "last.ckpt", weights_only=True)
    return content


@pytest.mark.parametrize("steps", [1, 3])  # within the first and the second epoch
def test_a_training_that_a_callback_ends_is_whole_and_can_be_continued(
    train: Train, tmp_path: Path, steps: int
) -> None:
    run = tmp_path / "run"
    count, stop = use("count", "Counter"), use("stop", "StopAfter", steps=steps)
    stopped = train(run, count, stop, "trainer.validate_every=2")
    assert stopped.code == 0, stopped.err
    assert f"after {steps} step{'s' * (steps > 1)} of 4, stopped early by a callback" in stopped.out
    summary = json.loads((run / "summary.json").read_bytes())
    assert (summary["steps"], summary["stopped_early"]) == (steps, True)
    last = [row for row in read_metrics(run) if row["val/miou"]][-1]
    assert (int(last["step"]) + 1, float(last["val/miou"])) in [
        (steps, summary["val_miou"]),
        (steps + 1, summary["val_miou"]),
    ]
    assert read_state(run)["epochs"] == steps // 2
    resumed = train(run, count, "resume=auto", "trainer.validate_every=2")
    assert resumed.code == 0, resumed.err
    assert f"step {steps} of 4" in resumed.err
    assert "state of the callback 'stop'" not in resumed.err  # it has none
    whole = train(tmp_path / "whole", count, "trainer.validate_every=2")
    assert whole.code == 0, whole.err
    weights = [(folder / "student.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
    assert weights[0] == weights[1]
    states = [read_state(folder)["callbacks"]["count"] for folder in (run, tmp_path / "whole")]
    assert [(state["begun"], state["ended"], state["weights"].tolist()) for state in states] == [(4, 4, [4.0, 4.0])] * 2
    assert "stopped_early" not in json.loads((run / "summary.json").read_bytes())


def test_the_state_is_of_the_batches_before_the_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint before a batch does not count that batch, though the callback has a hook at its begin."""
    seen: list[tuple[int, int]] = []
    collect = OwnCallbacks.collect_states

    def record(self: OwnCallbacks) -> dict[str, Any]:
        states = collect(self)
        seen.append((states["count"]["begun"], states["count"]["ended"]))
        return states

    monkeypatch.setattr(OwnCallbacks, "collect_states", record)
    result = train(tmp_path / "run", use("count", "Counter"), "trainer.max_epochs=1", "checkpoint.every_steps=1")
    assert result.code == 0, result.err
    assert seen == [(1, 1), (2, 2)]


def test_one_that_raises_is_named(train: Train, tmp_path: Path) -> None:
    result = train(tmp_path / "run", use("mine", "Raising"), "trainer.max_epochs=1")
    assert result.code == 1
    assert "ZeroDivisionError: division by zero" in result.err
    assert "raised by the callback 'mine' (tests.helpers.own_parts.Raising)" in result.err
    assert "on_save_checkpoint of the callback 'mine' is never called" in result.err


def test_a_value_that_it_refuses(train: Train, tmp_path: Path) -> None:
    stop = "+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/miou, mode: best}"
    result = train(tmp_path / "run", stop)
    assert (result.code, "callbacks.stop: `mode` can be" in result.err) == (2, True), result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_states_are_kept_by_name(caplog: pytest.LogCaptureFixture) -> None:
    own = OwnCallbacks({"count": Spec(Counter, {}), "other": Spec(own_parts.StopAfter, {"steps": 1})})
    callback = own.by_name["count"]
    assert isinstance(callback, Counter)
    callback.on_train_batch_end()
    states = own.collect_states()
    callback.on_train_batch_end()
    assert states["count"]["weights"].tolist() == [1, 1]  # a copy
    assert states.keys() == {"count"}
    own.restore_states({**states, "gone": {"a": 1}})
    assert (callback.ended, callback.weights.tolist()) == (1, [1, 1])
    assert "holds a state of the callback 'gone', which this run does not have" in caplog.text


def test_a_state_that_no_checkpoint_takes_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    own = OwnCallbacks({"count": Spec(Counter, {"plain": False})})
    assert [own.collect_states(), own.collect_states()] == [{}, {}]
    assert caplog.text.count("the state of the callback 'count' is not saved") == 1


def test_only_the_one_that_raised_is_named() -> None:
    own = OwnCallbacks({"one": Spec(Raising, {}), "two": Spec(Raising, {})})
    with pytest.raises(ZeroDivisionError) as caught:
        own.by_name["two"].on_train_epoch_end(None, None)  # type: ignore[arg-type]
    own.explain(caught.value)
    assert caught.value.__notes__ == ["raised by the callback 'two' (tests.helpers.own_parts.Raising)"]
    other = ValueError()
    own.explain(other)
    assert not hasattr(other, "__notes__")


def test_a_wrong_argument() -> None:
    with pytest.raises(UserError, match=r"StopAfter: no number"):
        OwnCallbacks({"stop": Spec(_Refusing, {})})


class _Refusing(own_parts.StopAfter):
    def __init__(self) -> None:
        raise ValueError("no number")


_Refusing.__name__ = "StopAfter"
