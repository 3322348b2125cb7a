"""A user's own folder: valid and invalid `classes.yaml`, and a training."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from segkd.data.folder import Folder
from segkd.errors import UserError
from segkd.models.student_io import load_student
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_folder


def edit_metadata(root: Path, **changes: object) -> None:
    """Change keys of classes.yaml; None removes one."""
    metadata = {**yaml.safe_load((root / "classes.yaml").read_text()), **changes}
    kept = {key: value for key, value in metadata.items() if value is not None}
    (root / "classes.yaml").write_text(yaml.safe_dump(kept))


@pytest.mark.parametrize("labels", ["ids", "colors"])
def test_reads_labels_as_ids_and_as_colors(tmp_path: Path, labels: str) -> None:
    write_folder(tmp_path, labels)
    data = Folder(tmp_path, "train")
    assert (data.classes, data.size, data.display_name) == (("soil", "crop", "weed"), (40, 60), tmp_path.name)
    assert data.get_name(1) == "train/field/1"
    write_folder(tmp_path / "ids")
    raw = cv2.imread(str(tmp_path / "ids/labels/train/field/0.png"), cv2.IMREAD_UNCHANGED)
    assert (data.load_label(0) == np.select([raw == 10, raw == 20, raw == 30], [0, 1, 2], IGNORE_INDEX)).all()
    path = data.files[0][1]
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    stored[0, 0] = 77 if labels == "ids" else (3, 2, 1)
    cv2.imwrite(str(path), stored)
    message = (
        "ids 77; .* allows 10, 20, 30, 255"
        if labels == "ids"
        else "colors #010203; .* allows #0000c8, #00c800, #c80000, #ffffff"
    )
    with pytest.raises(UserError, match=f"holds the {message}"):
        data[0]


def test_optional_keys_have_defaults(tmp_path: Path) -> None:
    write_folder(tmp_path)
    edit_metadata(tmp_path, classes=[{"name": "a"}, {"name": "b"}], labels=None, ignore=[10, 20, 30, 255], name="Farm")
    data = Folder(tmp_path, "train")
    assert data.label_map == {0: 0, 1: 1, **dict.fromkeys((10, 20, 30, 255), IGNORE_INDEX)}
    assert data.colors[0] != data.colors[1]
    assert (data.mean, data.std) == ((127.5,) * 3, (127.5,) * 3)
    assert data.display_name == "Farm"
    edit_metadata(tmp_path, mean=[1, 2, 3.5])
    assert Folder(tmp_path, "train").mean == (1, 2, 3.5)


INVALID: dict[str, tuple[dict[str, object], str]] = {
    "no classes": ({"classes": None}, "'classes' is missing; give a list of two to 250"),
    "one class": ({"classes": [{"name": "a"}]}, "'classes' is .*; give a list of two"),
    "names alone": ({"classes": ["a", "b"]}, "'classes' is .*; give a list of two"),
    "name that YAML parses as false": ({"classes": [{"name": "a"}, {"name": False}]}, "'classes' is "),
    "key of a class": ({"classes": [{"name": "a"}, {"name": "b", "colour": [0, 0, 0]}]}, "'classes' is "),
    "two of one name": ({"classes": [{"name": "a"}, {"name": "a"}]}, "two classes have the name a; give each its own"),
    "two of one id": ({"classes": [{"name": "a"}, {"name": "b", "id": 0}]}, "two classes have the id 0"),
    "class that is ignored": ({"ignore": [20]}, "'crop' is a class and in 'ignore'; leave out one"),
    "id of 16 bits": ({"ignore": [65535]}, r"'ignore' is \[65535\]; give a list of ids 0–255"),
    "no size": ({"size": None}, r"'size' is missing; give \[height, width\]"),
    "one size": ({"size": 512}, r"'size' is 512; give \[height, width\]"),
    "mean of 0..1": ({"mean": "0.4"}, "'mean' is '0.4'; give"),
    "coding": ({"labels": "rgb"}, "'labels' is 'rgb'; give ids, palette or colors"),
    "misspelt key": ({"class": []}, "has the keys class; it takes name, labels, classes"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_metadata_are_refused(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    changes, message = INVALID[name]
    edit_metadata(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        Folder(tmp_path, "train")
    assert str(error.value).startswith(str(tmp_path / "classes.yaml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"classes: [", "no valid YAML"),
        (b"\xff\xfe\x00", "no valid YAML"),
        (b"", "holds no keys"),
        (b"!!python/name:os.system", "no valid YAML"),
    ],
)
def test_unreadable_metadata_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "classes.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Folder(tmp_path, "train")


def test_missing_files_are_reported(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "classes.yaml").unlink()
    with pytest.raises(UserError, match=r"there is no .*classes\.yaml; it defines the classes"):
        Folder(tmp_path, "train")
    write_folder(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(UserError, match="images has no folder of a split; make images/train"):
        Folder(tmp_path, "train")


def test_run_uses_the_metadata_of_the_folder(command: Command, tmp_path: Path) -> None:
    """Classes, statistics, size and colors come from the dataset instance."""
    write_folder(tmp_path / "own")
    edit_metadata(tmp_path / "own", size=[32, 48], mean=[100.0, 90.0, 80.0], name="Farm")
    run = tmp_path / "run"
    result = command(
        "train", "dataset=folder", f"dataset.root={tmp_path / 'own'}", "trainer=cpu", "trainer.max_epochs=1", "data.workers=0",
        "data.batch_size=2", "trainer.progress=false", "wandb.mode=disabled", "student.p=1", "student.q=1", f"output_dir={run}",
    )  # fmt: skip
    assert result.code == 0, result.err
    student = yaml.safe_load((run / "student.yaml").read_text())
    assert (student["dataset"], student["classes"], student["num_classes"]) == ("Farm", ["soil", "crop", "weed"], 3)
    assert student["colors"] == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    assert load_student(run).normalization.mean.flatten().tolist() == [100, 90, 80]
    result = command("evaluate", f"run={run}", "workers=0")
    assert result.code == 0, result.err
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert (evaluation["dataset"], evaluation["split"], evaluation["classes"]) == (
        "Farm",
        "val",
        ["soil", "crop", "weed"],
    )
    (tmp_path / "own").rename(tmp_path / "moved")
    missing = command("evaluate", f"run={run}", "workers=0")
    assert missing.code == 2
    assert (
        f"the data of {run} are not at {tmp_path / 'own'}, seen from where the training started; give dataset.root=DIR"
        in missing.err
    )
    assert command("evaluate", f"run={run}", f"dataset.root={tmp_path / 'moved'}", "workers=0").code == 0
