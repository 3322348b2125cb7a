"""`from=roboflow`: which of its formats an export has, and masks with `_classes.csv`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.errors import UserError
from segkd.import_labels.annotations import Export, Notes, ReadSettings
from segkd.import_labels.formats.roboflow import read_roboflow
from tests.helpers.exports import draw_labels, paint, write_image

CLASSES = "Pixel Value, Class\n0, background\n2, car\n"
VALUES = {"b": 0, "c": 1}


def write_masks(root: Path, classes: str = CLASSES, value: int = 2) -> Path:
    """Two splits of one image each; `value` is a square of 2×2."""
    (root / "README.roboflow.txt").write_text("farm - v1")
    for split in ("train", "valid"):
        write_image(root / split / "a_jpg.rf.0f3.jpg", (4, 6))
        mask = np.zeros((4, 6), np.uint8)
        mask[1:3, 2:4] = value
        Image.fromarray(mask).save(root / split / "a_jpg.rf.0f3_mask.png")
        (root / split / "_classes.csv").write_text(classes)
    return root


def read(root: Path) -> tuple[Export, list[str]]:
    notes = Notes()
    return read_roboflow(root, ReadSettings(), notes), notes.list_lines()


def test_masks(tmp_path: Path) -> None:
    export, notes = read(write_masks(tmp_path))
    assert [entry.name for entry in export.classes] == ["background", "car"]
    assert [(image.split, image.name) for image in export.images] == [(s, "a_jpg.rf.0f3") for s in ("train", "valid")]
    np.testing.assert_array_equal(draw_labels(export)["a_jpg.rf.0f3"], paint("bbbbbb bbccbb bbccbb bbbbbb", VALUES))
    assert notes == []


def test_images_and_masks_alone_are_left_out(tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / "train/a_jpg.rf.0f3.jpg").unlink()
    (tmp_path / "valid/a_jpg.rf.0f3_mask.png").unlink()
    export, notes = read(tmp_path)
    assert export.images == []
    assert [line.partition(":")[0] for line in notes] == [
        "masks without an image are left out",
        "images without a mask are left out",
    ]


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ("Pixel Value, Class\n0, background\n0, car\n", "needs a value of its own, from 0 to 253, for each class"),
        ("Pixel Value, Class\n0, background\n255, car\n", "needs a value of its own, from 0 to 253, for each class"),
        ("filename, car\na.jpg, 1\n", "is no table of 'Pixel Value, Class'"),
        ("Pixel Value, Class\n0, background\n1, car\n", "holds the value 2, which .*_classes.csv does not name"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, classes: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        draw_labels(read(write_masks(tmp_path, classes))[0])


def test_tables_that_disagree_are_refused(tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / "valid/_classes.csv").write_text("Pixel Value, Class\n0, background\n2, bus\n")
    with pytest.raises(
        UserError, match=r"train/_classes.csv and .*valid/_classes.csv give the pixel values different classes"
    ):
        read(tmp_path)


def test_coco_and_yolo_are_recognized(tmp_path: Path) -> None:
    coco = tmp_path / "coco"
    write_image(coco / "train/a.jpg", (4, 6))
    categories = [{"id": 0, "name": "farm", "supercategory": "none"}, {"id": 1, "name": "car", "supercategory": "farm"}]
    outline = {
        "id": 0,
        "image_id": 0,
        "category_id": 1,
        "segmentation": [[2, 1, 4, 1, 4, 3, 2, 3]],
        "bbox": [2, 1, 2, 2],
    }
    images = [{"id": 0, "file_name": "a.jpg", "height": 4, "width": 6}]
    content = {"images": images, "categories": categories, "annotations": [outline]}
    (coco / "train/_annotations.coco.json").write_text(json.dumps(content))
    yolo = tmp_path / "yolo"
    write_image(yolo / "train/images/a.jpg", (4, 6))
    (yolo / "train/labels").mkdir()
    (yolo / "train/labels/a.txt").write_text("0 0.33333334 0.25 0.66666667 0.25 0.66666667 0.75 0.33333334 0.75")
    (yolo / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['car']\n")
    for root in (coco, yolo):
        export, _ = read(root)
        assert [entry.name for entry in export.classes] == ["car"]
        assert [image.split for image in export.images] == ["train"]
        np.testing.assert_array_equal(draw_labels(export)["a"], paint("...... ..cc.. ..cc.. ......", {"c": 0}))


def test_other_exports_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/_annotations.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
    with pytest.raises(
        UserError, match="is no export of Roboflow that has outlines or masks; export 'COCO Segmentation'"
    ):
        read(tmp_path)
    write_masks(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [car]\n")
    with pytest.raises(UserError, match=r"holds data.yaml and _classes.csv; give the folder of one export"):
        read(tmp_path)
