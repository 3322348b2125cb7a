"""Relative paths of a run's config are found from another folder too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from segkd.config.schema import DatasetRoot
from segkd.errors import UserError
from segkd.runs.load import resolve_dataset
from segkd.runs.paths import locate_paths
from segkd.runs.run import read_run
from tests.helpers.fake_datasets import write_folder
from tests.helpers.run_folders import PIXELWISE, write_run_folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was started in `start` with `dataset.root=data/mine`, seen from `elsewhere`."""
    write_folder(tmp_path / "start" / "data" / "mine")
    (tmp_path / "elsewhere").mkdir()
    run = write_run_folder(tmp_path / "start", 0.4, PIXELWISE, data="Folder")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["dataset"]["root"] = "data/mine"
    config["teacher"] = {"members": {name: {"checkpoint": f"teachers/{name}/student.safetensors"} for name in "ab"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    metadata = {"network": "x", "num_classes": 3, "arguments": {}, "normalization": {}, "dataset": "mine"}
    (run / "student.yaml").write_text(yaml.safe_dump(metadata))
    (run / "environment.json").write_text(json.dumps({"started_in": str(tmp_path / "start")}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return run


def test_the_dataset_is_found(run: Path, tmp_path: Path) -> None:
    assert resolve_dataset(DatasetRoot(None), run).arguments["root"] == str(tmp_path / "start/data/mine")
    write_folder(tmp_path / "elsewhere" / "data" / "mine")  # another of that name
    assert resolve_dataset(DatasetRoot(None), run).arguments["root"] == str(tmp_path / "start/data/mine")
    (tmp_path / "start" / "data").rename(tmp_path / "start" / "moved")
    assert resolve_dataset(DatasetRoot(None), run).arguments["root"] == str(tmp_path / "elsewhere/data/mine")


def test_both_places_are_named_where_it_is_in_neither(run: Path, tmp_path: Path) -> None:
    (tmp_path / "start" / "data").rename(tmp_path / "start" / "moved")
    with pytest.raises(UserError) as error:
        resolve_dataset(DatasetRoot(None), run)
    places = f"{tmp_path / 'start/data/mine'} or {tmp_path / 'elsewhere/data/mine'}"
    assert f"the data of {run} are not at {places}; give dataset.root=DIR" in str(error.value)


def test_a_run_without_a_record_goes_by_the_current_folder(run: Path, tmp_path: Path) -> None:
    (run / "environment.json").unlink()
    with pytest.raises(UserError, match="are not at data/mine; give"):
        resolve_dataset(DatasetRoot(None), run)


def test_teachers_are_found(run: Path, tmp_path: Path) -> None:
    assert read_run(run).teacher_seconds is None
    for name in "ab":
        (folder := tmp_path / "start" / "teachers" / name).mkdir(parents=True)
        (folder / "student.safetensors").touch()
        (folder / "summary.json").write_text('{"seconds": 20}')
    assert read_run(run).teacher_seconds == 40
    located = locate_paths({"teacher": {"checkpoint": "teachers/a/student.safetensors", "weight": 1}}, run)
    assert located == {"teacher": {"checkpoint": str(tmp_path / "start/teachers/a/student.safetensors"), "weight": 1}}
