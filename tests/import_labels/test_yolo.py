"""`from=yolo`: the layouts of Ultralytics, Roboflow and Label Studio, hand-drawn labels, and bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkd.errors import UserError
from segkd.import_labels.annotations import Export, Notes, ReadSettings
from segkd.import_labels.formats.yolo import find_label_file, read_yolo
from tests.helpers.exports import draw_labels, paint, write_image

TABLE = "path: .\ntrain: images/train\nval: images/val\nnames: {0: car, 1: person}\n"
CAR = "0 0.125 0.25 0.625 0.25 0.625 0.75 0.125 0.75"  # x 1–5, y 1–3 of 8 × 4
BOX = "1 0.875 0.5 0.25 0.5"  # x 6–8, y 1–3
VALUES = {"c": 0, "p": 1}


def write_export(root: Path, label: str | None = CAR, table: str = TABLE) -> Path:
    """Two splits of one image each, of which that in train has the label; the one in val has a person."""
    for split in ("train", "val"):
        write_image(root / f"images/{split}/a.jpg", (4, 8))
        (root / f"labels/{split}").mkdir(parents=True)
    (root / "data.yaml").write_text(table)
    (root / "labels/val/a.txt").write_text("1 0 0 1 0 1 1\n")
    if label is not None:
        (root / "labels/train/a.txt").write_text(label)
    return root


def read(root: Path, **settings: Any) -> tuple[Export, list[str]]:
    notes = Notes()
    export = read_yolo(root, ReadSettings(**settings), notes)
    draw_labels(export, notes)
    return export, notes.list_lines()


def draw_train(root: Path, **settings: Any) -> tuple[np.ndarray, list[str]]:
    export, notes = read(root, **settings)
    images = [image for image in export.images if image.split == "train"]
    return draw_labels(export._replace(images=images))["a"], notes


@pytest.mark.parametrize(
    ("label", "picture"),
    [
        (CAR, "........ .cccc... .cccc... ........"),
        (f"{CAR}\n\n1 0.5 0.25 0.75 0.25 0.75 0.5 0.5 0.5\n", "........ .cccpp.. .cccc... ........"),
        ("", "........ ........ ........ ........"),
        (f"\ufeff{CAR}\r\n", "........ .cccc... .cccc... ........"),
    ],
    ids=["outline", "two", "empty", "Windows"],
)
def test_labels(tmp_path: Path, label: str, picture: str) -> None:
    drawn, notes = draw_train(write_export(tmp_path, label))
    np.testing.assert_array_equal(drawn, paint(picture, VALUES))
    assert notes == []


@pytest.mark.parametrize(
    ("boxes", "picture", "fate"),
    [
        ("skip", "........ " * 4, "left out; boxes=fill fills them"),
        ("fill", "........ ......pp ......pp ........", "filled"),
    ],
)
def test_boxes(tmp_path: Path, boxes: str, picture: str, fate: str) -> None:
    drawn, notes = draw_train(write_export(tmp_path, BOX), boxes=boxes)
    np.testing.assert_array_equal(drawn, paint(picture, VALUES))
    where = tmp_path / "labels/train/a.txt"
    assert notes == [f"boxes without an outline are {fate}: 1, the first is {where}, line 1"]


def test_outlines_of_pixel_indices(tmp_path: Path) -> None:
    drawn, _ = draw_train(write_export(tmp_path, CAR), outlines="centers")
    np.testing.assert_array_equal(drawn, paint("........ .ccccc.. .ccccc.. .ccccc..", VALUES))


LEFT, RIGHT = "0 0 0 0.5 0 0.5 0.75", "0 0.5 0 1 0 1 0.75"


@pytest.mark.parametrize(
    ("lines", "settings", "is_noted"),
    [
        ([LEFT] * 10, {}, True),
        ([LEFT] * 9, {}, False),
        ([*[LEFT] * 10, RIGHT], {}, False),
        ([LEFT] * 10, {"outlines": "edges"}, False),
        ([RIGHT] * 10, {}, False),
    ],
    ids=["indices", "too few", "one at the right", "told", "edges"],
)
def test_outlines_that_end_before_the_edge_are_noted(
    tmp_path: Path, lines: list[str], settings: dict[str, Any], is_noted: bool
) -> None:
    root = write_export(tmp_path, "\n".join(lines))
    (root / "labels/val/a.txt").write_text("")
    notes = read(root, **settings)[1]
    assert any("outlines=centers draws them so" in note and ": 10, the first is" in note for note in notes) == is_noted


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['car', 'person']\n",  # Roboflow
        "path: /datasets/on/another/machine\ntrain: images/train\nval: [images/val]\nnames: [car, person]\n",
        "path: .\ntrain: train.txt\nval: val.txt\nnames: {0: car, 1: person}\n",  # CVAT
    ],
    ids=["ultralytics", "roboflow", "absolute", "lists"],
)
def test_layouts(tmp_path: Path, table: str) -> None:
    write_export(tmp_path, table=table)
    for split, name in (("train", "train"), ("val", "valid")) if "../" in table else ():
        (tmp_path / name).mkdir()
        for kind in ("images", "labels"):
            (tmp_path / kind / split).rename(tmp_path / name / kind)
    for split in ("train", "val") if ".txt" in table else ():
        (tmp_path / f"{split}.txt").write_text(f"data/images/{split}/a.jpg\n")
    export, notes = read(tmp_path)
    assert [entry.name for entry in export.classes] == ["car", "person"]
    assert [(image.split, image.name, image.content[0].class_name) for image in export.images] == [  # type: ignore[index]
        ("train", "a", "car"),
        ("val", "a", "person"),
    ]
    assert notes == []
    assert len(read(tmp_path / "data.yaml")[0].images) == 2


def test_label_studio_has_a_list_of_names(tmp_path: Path) -> None:
    write_image(tmp_path / "images/sub/a.jpg", (4, 8))
    (tmp_path / "labels/sub").mkdir(parents=True)
    (tmp_path / "labels/sub/a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("car\nperson\n")
    export, _ = read(tmp_path, boxes="fill")
    assert [entry.name for entry in export.classes] == ["car", "person"]
    assert [(image.split, image.name) for image in export.images] == [(None, "images/sub/a")]


def test_a_folder_around_the_export_is_entered(tmp_path: Path) -> None:
    write_export(tmp_path / "farm-v1")
    assert len(read(tmp_path)[0].images) == 2


def test_two_lists_of_names_must_agree(tmp_path: Path) -> None:
    root = write_export(tmp_path)
    (root / "classes.txt").write_text("car\nperson\n")
    assert len(read(root)[0].images) == 2
    (root / "classes.txt").write_text("person\ncar\n")
    with pytest.raises(UserError, match=r"data.yaml and .*classes.txt name different classes; remove the wrong one"):
        read(root)


def test_images_of_train_that_are_those_of_val_are_read_once(tmp_path: Path) -> None:
    export, _ = read(write_export(tmp_path, table=TABLE.replace("images/val", "images/train")))
    assert [(image.split, len(image.content)) for image in export.images] == [("train", 1)]  # type: ignore[arg-type]


def test_label_file_of_an_image() -> None:
    assert find_label_file(Path("images/set/images/train/a.b.jpg")) == Path("images/set/labels/train/a.b.txt")
    assert find_label_file(Path("obj_train_data/images.jpg")) == Path("obj_train_data/images.txt")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ("no label", "images have no text file, so nothing is in them: 1, the first is "),
        ("no image", "labels without an image are left out: 1, the first is "),
        ("no test", "splits that are not there are left out: 1, the first is test of "),
        ("list", "images are missing and left out: 1, the first is images/gone.jpg in "),
    ],
)
def test_what_is_left_out_is_noted(tmp_path: Path, change: str, note: str) -> None:
    root = write_export(tmp_path, None if change == "no label" else CAR)
    if change == "no image":
        (root / "labels/train/b.txt").write_text(CAR)
    if change == "no test":
        (root / "data.yaml").write_text(f"{TABLE}test: images/test\n")
    if change == "list":
        (root / "data.yaml").write_text(f"{TABLE}test: test.txt\n")
        (root / "test.txt").write_text("images/gone.jpg\n")
    _, notes = read(root)
    assert [line[: len(note)] for line in notes] == [note]


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("0 0.5 0.5", "line 1 has 3 numbers; a box has 5, and an outline a class and at least three points"),
        ("0 0.1 0.1 0.2 0.2 0.3", "line 1 has 6 numbers"),
        ("2 0 0 1 0 1 1", "line 1 is of class 2; .*data.yaml has 0 car, 1 person"),
        ("0.5 0 0 1 0 1 1", "line 1 is of class 0.5"),
        ("-1 0 0 1 0 1 1", "line 1 is of class -1"),
        ("nan 0 0 1 0 1 1", "line 1 is of class nan"),
        ("0 0 0 nan 0 1 1", "line 1 has coordinates far outside 0–1"),
        (
            f"{CAR}\n0 10 20 30 20 30 40",
            "line 2 has coordinates far outside 0–1; they are parts of width and height, not pixels",
        ),
        ("car 0 0 1 0 1 1", "line 1 is 'car 0 0 1 0 1 1'; expected a class number and coordinates"),
        (b"\xff\xfe\x00", "line 1 is "),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, label: str | bytes, sentence: str) -> None:
    root = write_export(tmp_path)
    content = label.encode() if isinstance(label, str) else label
    (root / "labels/train/a.txt").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read(root)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (None, "holds no yaml file with names of classes, and no classes.txt"),
        ("names: [", "is no valid YAML"),
        ("names: 3\ntrain: images/train", "'names' is 3; give a list of names, or number: name"),
        ("names: {a: car}\ntrain: images/train", "'names' is {'a': 'car'}"),
        ("names: [car, person]\nnc: 3\ntrain: images/train", "has 2 names and nc: 3"),
        ("names: [car, person]", "names no images; it takes 'train', 'val' and 'test'"),
        ("names: [car, person]\ntrain: pictures", "which is not there; unpack the whole export, or correct the path"),
        ("names: [car, person]\ntrain: images/train\nkpt_shape: [17, 3]", "is an export of keypoints"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, table: str | None, sentence: str) -> None:
    root = write_export(tmp_path)
    if table is None:
        (root / "data.yaml").unlink()
    else:
        (root / "data.yaml").write_text(table)
    with pytest.raises(UserError, match=sentence):
        read(root)


def test_two_tables_and_images_without_any_label_are_refused(tmp_path: Path) -> None:
    root = write_export(tmp_path, None)
    (root / "labels/val/a.txt").unlink()
    with pytest.raises(
        UserError, match=r"none of 2 images has a label; that of .*images/train/a.jpg would be .*labels/train/a.txt"
    ):
        read(root)
    with pytest.raises(UserError, match="image_folder is not used for YOLO"):
        read(root, image_folder=root)
    (root / "other.yaml").write_text(TABLE)
    with pytest.raises(UserError, match=r"data.yaml and .*other.yaml both name classes"):
        read(root)
