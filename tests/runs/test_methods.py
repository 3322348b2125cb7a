"""What makes two runs different methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from segkd.runs.methods import find_baselines, group_by_method
from segkd.runs.run import Run, read_run
from tests.helpers.run_folders import write_run_folder


def read_with(tmp_path: Path, seed: int, terms: tuple[str, ...] = (), **keys: Any) -> Run:
    directory = write_run_folder(tmp_path, 0.5, terms, seed=seed)
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **keys}))
    return read_run(directory)


STOP = {"stop": {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "patience": 5}}


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"callbacks": STOP}, ["baseline, callbacks=none", "baseline, callbacks=stop"]),
        ({"callbacks": {}}, ["baseline"]),  # an earlier version wrote no key
        (
            {"logger": {"csv": {"_target_": "segkd.train.loggers.csv.MetricsFileLogger"}}, "wandb": {"mode": "online"}},
            ["baseline"],
        ),
    ],
)
def test_callbacks_make_a_method_and_loggers_do_not(tmp_path: Path, keys: dict[str, Any], names: list[str]) -> None:
    runs = [read_with(tmp_path, 0), read_with(tmp_path, 1, **keys)]
    assert list(group_by_method(runs)) == names


def test_a_baseline_has_the_callbacks_of_what_it_is_compared_with(tmp_path: Path) -> None:
    runs = [
        read_with(tmp_path, 0),
        read_with(tmp_path, 0, callbacks=STOP),
        read_with(tmp_path, 0, ("pixelwise",), callbacks=STOP),
    ]
    (baseline,) = find_baselines(runs[2:], group_by_method(runs))
    assert [run.config.get("callbacks") for run in baseline] == [STOP]
