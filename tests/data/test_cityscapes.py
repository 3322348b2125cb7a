"""Cityscapes: its layout and the mapping of its label ids."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data.cityscapes import Cityscapes
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers.fake_datasets import write_cityscapes

# The license plate has id -1, which is 255 in 8 bits; ids outside of this table are ignored.
CLASS_BY_ID = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
IGNORED_IDS = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 255]


def find_first_label(root: Path, split: str = "train", folder: str = "gtFine") -> Path:
    return sorted((root / folder / split).rglob("*.png"))[0]


def test_label_ids_are_mapped(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, train=1, val=0)
    ids = np.array([*range(34), 255], np.uint8)
    raw = np.broadcast_to(ids, (144, 35))
    cv2.imwrite(str(find_first_label(tmp_path)), np.ascontiguousarray(np.pad(raw, ((0, 0), (0, 253)))))
    label = Cityscapes(tmp_path, "train")[0].label[0, :35]
    classes = dict(zip(ids.tolist(), label.tolist(), strict=True))
    assert {i: Cityscapes.classes[c] for i, c in classes.items() if c != IGNORE_INDEX} == CLASS_BY_ID
    assert [i for i, c in classes.items() if c == IGNORE_INDEX] == IGNORED_IDS


def test_training_ids_take_precedence(tmp_path: Path) -> None:
    """Id 7 is road as a label id and traffic sign as a training id."""
    write_cityscapes(tmp_path, train=2, val=0, kind="labelIds")
    write_cityscapes(tmp_path, train=2, val=0, kind="labelTrainIds")
    label = find_first_label(tmp_path)
    train_label = label.with_name(label.name.replace("labelIds", "labelTrainIds"))
    content = np.full((144, 288), 7, np.uint8)
    content[:, 100:] = 255
    cv2.imwrite(str(train_label), content)
    classes = Cityscapes(tmp_path, "train")[0].label
    assert (classes == np.where(content == 7, Cityscapes.classes.index("traffic sign"), IGNORE_INDEX)).all()

    cv2.imwrite(str(train_label), np.full_like(content, 33))
    with pytest.raises(UserError, match="holds the ids 33; Cityscapes allows 0–18, 255"):
        Cityscapes(tmp_path, "train")[0]
    for path in (tmp_path / "gtFine").rglob("*_labelTrainIds.png"):
        path.unlink()
    cv2.imwrite(str(label), content)
    assert Cityscapes.classes[Cityscapes(tmp_path, "train")[0].label[0, 0]] == "road"


def test_finds_the_images_of_each_split(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, train=2, val=1, test=1, extra=3)
    datasets = {split: Cityscapes(tmp_path, split) for split in Cityscapes.splits}
    assert {split: len(data) for split, data in datasets.items()} == {"train": 2, "val": 1, "test": 1, "train_extra": 3}
    assert datasets["train"].get_name(1) == "aachen_000001_000019_leftImg8bit"
    image, label = datasets["train_extra"].files[0]
    assert str(image.relative_to(tmp_path)) == "leftImg8bit/train_extra/bayreuth/bayreuth_000000_000019_leftImg8bit.png"
    assert (
        str(label.relative_to(tmp_path)) == "gtCoarse/train_extra/bayreuth/bayreuth_000000_000019_gtCoarse_labelIds.png"
    )
    assert (datasets["train_extra"][0].label == IGNORE_INDEX).any()


def test_missing_files_are_reported_with_the_download_hint(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"found no images of Cityscapes train .*; expected leftImg8bit/ .* register .* csDownload"
    ):
        Cityscapes(tmp_path, "train")
    write_cityscapes(tmp_path, val=0)
    find_first_label(tmp_path).unlink()
    with pytest.raises(
        UserError,
        match=r"1 of 4 images of Cityscapes train .* first missing label is .*000000_000019_gtFine_labelIds",
    ):
        Cityscapes(tmp_path, "train")
