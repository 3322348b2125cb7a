"""Two splits are one if their class tables and their files are, whatever their folders are called."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkd.data.folder import Folder
from segkd.data.identity import identify_data
from segkd.data.packed import Packed, write_pack
from segkd.data.streets import Streets
from tests.helpers.fake_datasets import write_folder


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    write_folder(tmp_path / "v1" / "farm")
    return tmp_path / "v1" / "farm"


def identify(root: Path, split: str = "val") -> dict[str, Any]:
    return identify_data(Folder(root, split))


def edit_classes(root: Path, old: str, new: str) -> None:
    file = root / "classes.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def repaint_label(root: Path) -> None:
    """Give one region of a label another class."""
    file = next((root / "labels" / "val").rglob("*.png"))
    label = np.array(Image.open(file))
    first, *_, last = np.unique(label[label < 255])
    swapped = np.where(label == first, last, np.where(label == last, first, label))
    Image.fromarray(swapped.astype(np.uint8)).save(file)


def remove_image(root: Path) -> None:
    for folder in ("images", "labels"):
        next((root / folder / "val").rglob("1.png")).unlink()


def test_a_copy_is_the_same(farm: Path, tmp_path: Path) -> None:
    shutil.copytree(farm, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*"):
        os.utime(file, (0, 0))
    edit_classes(tmp_path / "copy", "[200, 0, 0]}", "[100, 0, 0]}")  # a color is for pictures alone
    edit_classes(tmp_path / "copy", "ignore: [255]", "ignore: [255, 254]\nname: other")
    assert identify(tmp_path / "copy") == identify(farm)
    assert identify(farm, "train") != identify(farm)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (repaint_label, "contents"),
        (remove_image, "contents"),
        (lambda root: edit_classes(root, "name: soil", "name: sand"), "class_table"),
        (lambda root: edit_classes(root, "id: 10", "id: 11"), "class_table"),
    ],
    ids=["a label repainted", "an image less", "a class renamed", "another id"],
)
def test_a_change_is_seen(farm: Path, change: Callable[[Path], None], part: str) -> None:
    before = identify(farm)
    change(farm)
    after = identify(farm)
    assert {key for key in before if before[key] != after[key]} - {"images"} == {part}


def test_labels_of_equal_size_differ_by_their_checksum(tmp_path: Path) -> None:
    """Masks that were swapped between two images: all sizes are equal."""
    for name, value in (("one", 10), ("two", 20)):
        write_folder(tmp_path / name)
        for file in (tmp_path / name / "labels" / "val").rglob("*.png"):
            Image.fromarray(np.full((40, 60), value, np.uint8)).save(file)
    sizes = [[f.stat().st_size for f in sorted((tmp_path / n / "labels").rglob("*.png"))] for n in ("one", "two")]
    assert sizes[0] == sizes[1]
    assert identify(tmp_path / "one")["contents"] != identify(tmp_path / "two")["contents"]


def test_a_pack_is_what_was_packed(farm: Path, tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", [Folder(farm, "train"), Folder(farm, "val")], 1)
    assert identify_data(Packed(tmp_path / "pack", "val")) == identify(farm)
    index = tmp_path / "pack" / "pack.json"
    content = json.loads(index.read_text())
    for part in content["parts"].values():
        del part["contents"]  # as earlier versions wrote it
    index.write_text(json.dumps(content))
    assert identify_data(Packed(tmp_path / "pack", "val")) == {**identify(farm), "contents": None}


def test_generated_scenes_are_told_by_their_seed_and_number() -> None:
    same, *others = (Streets("train"), Streets("train", scene_seed=1), Streets("train", images=64), Streets("val"))
    assert identify_data(same) == identify_data(Streets("train", images=256))
    assert len({identify_data(streets)["contents"] for streets in (same, *others)}) == 4


def test_names_that_are_no_text(farm: Path) -> None:
    source = next((farm / "images" / "val").rglob("0.png"))
    for folder in ("images", "labels"):
        path = farm / folder / "val" / "field"
        shutil.copy(path / "0.png", os.fsencode(path) + b"/l\xe4ufer.png")
    assert identify(farm)["images"] == 3
    assert source.is_file()
