"""metrics.csv: continued, widened, cut where a run goes on, and patient with a full disk."""

from __future__ import annotations

import csv
import errno
from pathlib import Path
from typing import Any

import pytest

from segkd.cli.logs import configure_logging
from segkd.train.loggers.csv import MetricsFileLogger


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def filled(directory: Path, steps: int) -> MetricsFileLogger:
    made = MetricsFileLogger(directory)
    for step in range(steps):
        made.log_metrics({"a": step}, step)
    return made


def test_a_curve_that_comes_later_widens_the_table(tmp_path: Path) -> None:
    filled(tmp_path, 1).log_metrics({"b": 2.5}, 0)
    filled(tmp_path, 1)  # goes on with the file that it finds
    assert rows(tmp_path) == [
        {"step": "0", "a": "0", "b": ""},
        {"step": "0", "a": "", "b": "2.5"},
        {"step": "0", "a": "0", "b": ""},
    ]


def test_what_will_be_done_again_is_cut(tmp_path: Path) -> None:
    filled(tmp_path, 5)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4")  # a row that a crash has cut off
    again = MetricsFileLogger(tmp_path)
    again.truncate_after(3)
    again.log_metrics({"a": 30}, 3)
    assert [(row["step"], row["a"]) for row in rows(tmp_path)] == [("0", "0"), ("1", "1"), ("2", "2"), ("3", "30")]
    MetricsFileLogger(tmp_path / "nowhere").truncate_after(3)


@pytest.mark.parametrize("mode", ["a", "w"])
def test_rows_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    configure_logging()
    made = filled(tmp_path, 2)
    opened = Path.open

    def full(path: Path, how: str = "r", **options: Any) -> Any:
        if how == mode:
            with opened(path, how, **options) as file:
                file.write("3,")
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, how, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        for step in (2, 3):
            made.log_metrics({"a": step, "b": step} if mode == "w" else {"a": step}, step)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]
    made.log_metrics({"a": 4}, 4)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "4"]
    assert capsys.readouterr().err.count("No space left on device") == 1
