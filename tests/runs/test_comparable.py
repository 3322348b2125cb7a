"""Scores are compared only where data, split and protocol are the same, as far as that is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segkd.errors import UserError
from segkd.runs.comparable import load_comparable_runs
from segkd.runs.methods import group_by_method
from tests.helpers.commands import Command
from tests.helpers.run_folders import EVALUATION, PIXELWISE, write_run_folder

STUDENT = {"network": "segkd.models.espnet.ESPNetC", "num_classes": 2, "arguments": {}, "normalization": {}}


def identity(contents: str | None = "aaaa", class_table: str = "tttt", images: int = 40) -> dict[str, Any]:
    return {"classes": 2, "class_table": class_table, "images": images, "contents": contents}


def write_farm_run(
    parent: Path, miou: float, *terms: str, seed: int = 0, root: str = "v1/farm", **splits: dict[str, Any]
) -> Path:
    """Write a run on a folder called farm; without `train` and `val`, as an earlier version recorded it."""
    run = write_run_folder(parent, miou, terms, seed=seed, data="Folder")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["dataset"]["root"] = root
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "student.yaml").write_text(yaml.safe_dump({**STUDENT, "dataset": "farm"}))
    if splits:
        (run / "environment.json").write_text(json.dumps({"data": splits}))
    return run


def load(folder: Path) -> tuple[dict[str, int], list[str]]:
    runs, notes = load_comparable_runs([f"{folder}/*"])
    return {name: len(group) for name, group in group_by_method(runs).items()}, notes


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (identity("bbbb"), "the files of farm val differ between .*00 and .*01 .both have 40 images"),
        (identity("bbbb", images=52), "the files of farm val differ between .* .40 and 52 images"),
        (identity(class_table="uuuu"), "the class tables of farm val differ between .* .both have 2 classes"),
    ],
)
def test_data_of_one_name_are_told_apart(tmp_path: Path, other: dict[str, Any], sentence: str) -> None:
    write_farm_run(tmp_path, 0.05, train=identity(), val=identity())
    write_farm_run(tmp_path, 0.42, seed=1, root="v2/farm", train=other, val=other)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path)


def test_the_same_data_elsewhere_are_two_seeds(tmp_path: Path) -> None:
    write_farm_run(tmp_path, 0.40, train=identity(), val=identity())
    write_farm_run(tmp_path, 0.42, seed=1, root="/mnt/farm", train=identity(), val=identity())
    assert load(tmp_path) == ({"baseline": 2}, [])


def test_other_training_images_are_another_method(tmp_path: Path) -> None:
    for seed, train in enumerate((identity(), identity(), identity("cccc", images=80))):
        write_farm_run(tmp_path, 0.40, seed=seed, train=train, val=identity("vvvv"))
    expected = {"baseline, train data=40 images (aaaa)": 2, "baseline, train data=80 images (cccc)": 1}
    assert load(tmp_path) == (expected, [])


def test_runs_of_an_earlier_version_go_by_the_name(tmp_path: Path) -> None:
    write_farm_run(tmp_path, 0.40)
    write_farm_run(tmp_path, 0.41, seed=1)
    assert load(tmp_path) == ({"baseline": 2}, [])
    write_farm_run(tmp_path, 0.42, seed=2, train=identity(), val=identity())
    methods, (note,) = load(tmp_path)
    assert methods == {"baseline": 3}
    assert note.startswith("2 of 3 runs, such as ")
    write_farm_run(tmp_path, 0.43, seed=3, train=identity(), val=identity(None))  # a pack of an earlier version
    assert load(tmp_path)[0] == {"baseline": 4}


def test_two_folders_of_one_name_without_a_record_are_pointed_out(tmp_path: Path) -> None:
    write_farm_run(tmp_path, 0.40)
    write_farm_run(tmp_path, 0.41, seed=1, root="v2/farm")
    assert "recorded the name of the dataset and not its contents" in load(tmp_path)[1][0]


def evaluate(run: Path, miou: float, **other: Any) -> None:
    (run / "evaluation.json").write_text(json.dumps({**EVALUATION, "miou": miou, "iou": {"road": miou}, **other}))


def test_one_evaluation_does_not_hinder_a_comparison(tmp_path: Path) -> None:
    for seed in range(3):
        last = write_run_folder(tmp_path, 0.4 + seed / 100, seed=seed)
    evaluate(last, 0.9)
    runs, (note,) = load_comparable_runs([f"{tmp_path}/*"])
    assert [run.miou for run in runs] == pytest.approx([0.4, 0.41, 0.42])
    assert all(run.evaluation is None for run in runs)
    assert note.startswith("2 of 3 runs have no evaluation.json, so all are compared by their last validation")
    for run in sorted(tmp_path.iterdir()):
        evaluate(run, 0.9)
    runs, notes = load_comparable_runs([f"{tmp_path}/*"])
    assert ([run.miou for run in runs], notes) == ([0.9, 0.9, 0.9], [])


def test_evaluations_of_different_splits_give_way_to_the_validations(tmp_path: Path) -> None:
    for seed, split in enumerate(("val", "test")):
        evaluate(write_run_folder(tmp_path, 0.4, seed=seed), 0.9, split=split)
    runs, (note,) = load_comparable_runs([f"{tmp_path}/*"])
    assert [run.miou for run in runs] == [0.4, 0.4]
    assert note.startswith("their evaluations are of different data")


def test_evaluations_of_different_data_of_one_name(tmp_path: Path) -> None:
    for seed, contents in enumerate(("aaaa", "bbbb")):
        run = write_run_folder(tmp_path, 0.4, seed=seed)
        evaluate(run, 0.9, data=identity(contents))
        (run / "metrics.csv").write_text("step\n1\n")  # there is no validation to go by
    with pytest.raises(UserError, match="the files of Streets val differ"):
        load_comparable_runs([f"{tmp_path}/*"])


def test_the_words_of_earlier_protocols_are_todays(tmp_path: Path) -> None:
    words = (
        ("all outputs of the network", "the data set's classes"),
        ("all outputs of the network", "the dataset's classes"),
    )
    for seed, (void, competing) in enumerate(words):
        evaluate(write_run_folder(tmp_path, 0.4, seed=seed), 0.5, protocol={"void": void, "competing": competing})
    runs, notes = load_comparable_runs([f"{tmp_path}/*"])
    assert [run.miou for run in runs] == [0.5, 0.5]
    assert "data set" not in runs[0].score.measured_on
    assert not notes


@pytest.mark.parametrize("name", ["run [1]", "a*b", "?", "{x}", "[!a]", "läufer [b]"])
def test_a_path_that_exists_is_taken_literally(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    write_run_folder(tmp_path / name, 0.4).rename(tmp_path / name / "[0]")
    write_run_folder(tmp_path / name, 0.45, PIXELWISE).rename(tmp_path / name / "[1]")
    result = command("compare", f'runs=["{tmp_path / name}/[0]","{tmp_path / name}/[1]"]')
    assert result.code == 0, result.err
    assert "45.00" in result.out
    runs, _ = load_comparable_runs([str(tmp_path / name / "[0]")])
    assert [run.directory for run in runs] == [tmp_path / name / "[0]"]
