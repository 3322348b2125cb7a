"""A user's own folder: which files it reads, and a training."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from segkd.data.folder import Folder
from segkd.errors import UserError
from segkd.models.student_io import load_student
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import edit_metadata, write_folder


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


@pytest.mark.parametrize(
    ("suffix", "ending"), [(None, ".PNG"), (None, ".png.png"), ("_mask.png", "_mask.png"), (".tif", ".tif")]
)
def test_labels_may_have_another_suffix(tmp_path: Path, suffix: str | None, ending: str) -> None:
    write_folder(tmp_path)
    expected = [sample.label for sample in Folder(tmp_path, "train")]
    for path in sorted((tmp_path / "labels").rglob("*.png")):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        Image.fromarray(pixels).save(path.with_name(path.stem + ending))
    if suffix:
        with pytest.raises(
            UserError, match=f"have no label; .* is there: give `label_suffix: {ending}` in classes.yaml"
        ):
            Folder(tmp_path, "train")
    edit_metadata(tmp_path, label_suffix=suffix)
    data = Folder(tmp_path, "train")
    assert all((sample.label == label).all() for sample, label in zip(data, expected, strict=True))
    assert data.find_labels_without_image("train") == []


def test_linked_folders_and_other_suffixes_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / kind / "train/field").rename(tmp_path / f"{kind}_elsewhere")
        (tmp_path / kind / "train/field").symlink_to(tmp_path / f"{kind}_elsewhere")
    image = tmp_path / "images/train/field/0.png"
    Image.open(image).save(image.with_suffix(".TIF"))
    image.unlink()
    data = Folder(tmp_path, "train")
    assert [data.get_name(i) for i in range(len(data))] == ["train/field/0", "train/field/1"]
    assert data.find_labels_without_image("train") == []


def test_left_out_files_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    for name in (
        "images/train/._0.png",
        "images/train/0.heic",
        "images/train/1.heic",
        "images/.ipynb_checkpoints/x.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level("WARNING"):
        data = Folder(tmp_path, "train")
    assert (data.splits, len(data)) == (("train", "val"), 2)
    unread, hidden = caplog.messages
    assert unread.startswith(f"{tmp_path}/images/train/0.heic and 1 more are not read")
    assert hidden == f"{tmp_path}/images/train/._0.png is left out as hidden"
    for path in (tmp_path / "images/train/field").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"found no images of .* \(.*0.heic and 1 more are not read"):
        Folder(tmp_path, "train")


def test_images_that_share_a_label_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    image = tmp_path / "images/train/field/0.png"
    Image.open(image).save(image.with_suffix(".jpg"))
    with pytest.raises(UserError, match=r"0.jpg and .*0.png differ only in their suffix; rename or remove one"):
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
    assert f"the data of {run} are not at {tmp_path / 'own'}; give dataset.root=DIR" in missing.err
    assert command("evaluate", f"run={run}", f"dataset.root={tmp_path / 'moved'}", "workers=0").code == 0
