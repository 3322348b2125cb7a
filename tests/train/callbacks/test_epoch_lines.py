"""The line at the end of each epoch."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from segkd.train.callbacks.epoch_lines import EpochBar, format_duration
from tests.helpers.commands import Command
from tests.helpers.training import TINY_TRAINING


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (245, "4 min 5 s"), (4200, "1 h 10 min"), (3 * 86400 + 7200, "3 d 2 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_one_line_an_epoch(command: Command, tmp_path: Path) -> None:
    arguments = (*TINY_TRAINING, "check_teacher=off", "trainer.limit_val_batches=1", f"output_dir={tmp_path / 'run'}")
    result = command("train", *arguments, "trainer.max_epochs=3", "trainer.validate_every=2", "trainer.progress=true")
    assert result.code == 0, result.err
    number, rate = r"\d+(\.\d+)?", r"\S+ steps/s"
    patterns = [
        rf"segkd: epoch 1/3 step 2 total {number}, {rate}, \d+ s left",
        rf"segkd: epoch 2/3 step 4 total {number} val mIoU {number}, {rate}, \d+ s left",
        rf"segkd: epoch 3/3 step 6 total {number}, {rate}",
    ]
    lines = [line for line in result.err.splitlines() if "epoch " in line]
    assert [bool(re.fullmatch(*pair)) for pair in zip(patterns, lines, strict=True)] == [True] * 3, lines


def test_bar_counts_epochs_from_1() -> None:
    bar = EpochBar()
    bar._trainer = SimpleNamespace(max_epochs=30)  # type: ignore[assignment]
    assert bar._get_train_description(0).strip() == "Epoch 1/30"
    bar._trainer.max_epochs = None
    assert bar._get_train_description(4).strip() == "Epoch 5"
