"""Splits of an import: the export's own, or new ones."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Notes
from segkd.import_labels.splits import SplitSettings, choose_splits, find_names, find_split_in_name, normalize_split

DEFAULT = SplitSettings(None, None, 0, None, False, False)


def make_images(*splits: str | None) -> list[AnnotatedImage]:
    return [AnnotatedImage(Path(f"{split}/{i:02}.jpg"), f"{i:02}", (), split=split) for i, split in enumerate(splits)]


def choose(images: list[AnnotatedImage], **settings: Any) -> tuple[list[str], list[str]]:
    notes = Notes()
    return choose_splits(images, DEFAULT._replace(**settings), notes), notes.list_lines()


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("valid", "val"),
        ("Training", "train"),
        ("val2017", "val"),
        ("test", "test"),
        ("Extra 2017", "Extra 2017"),
        ("minival", "minival"),
    ],
)
def test_names_of_splits(name: str, usual: str) -> None:
    assert normalize_split(name) == usual


@pytest.mark.parametrize(
    ("stem", "split"),
    [("instances_val2017", "val"), ("train", "train"), ("my-valid-set", "val"), ("trainer", None), ("farm", None)],
)
def test_splits_in_names(stem: str, split: str | None) -> None:
    assert find_split_in_name(stem) == split


def test_own_splits_are_kept() -> None:
    assert choose(make_images("train", "valid", "test", "Extra")) == (["train", "val", "test", "Extra"], [])
    splits, notes = choose(make_images("train", "valid", None))
    assert splits == ["train", "val", "train"]
    assert notes == ["images are in no split of the export and go to train: 1, the first is None/02.jpg"]


def test_an_export_without_splits_is_divided() -> None:
    splits, notes = choose(make_images(*[None] * 20))
    assert Counter(splits) == {"train": 16, "val": 4}
    assert len(notes) == 1
    assert re.search("divided one by one; group= .* keeps together .*: 20, the first is None/00.jpg", notes[0])
    assert choose(make_images(*[None] * 20))[0] == splits
    assert choose(make_images(*[None] * 20), seed=1)[0] != splits
    assert Counter(choose(make_images(*[None] * 20), val=0.5, test=0.1)[0]) == {"train": 8, "val": 10, "test": 2}
    assert {*choose(make_images(*[None] * 20), val=0)[0]} == {"train"}


@pytest.mark.parametrize("choice", [{"val": 0.2}, {"group": "."}])
def test_who_says_how_to_divide_is_told_nothing(choice: dict[str, Any]) -> None:
    assert choose(make_images(*[None] * 20), **choice)[1] == []


def test_an_export_without_val_gets_one_and_keeps_test() -> None:
    splits, notes = choose(make_images(*["train"] * 10, *["test"] * 2))
    assert Counter(splits) == {"train": 8, "val": 2, "test": 2}
    assert splits[10:] == ["test", "test"]
    assert notes == ["the export has no val, and its images of train are divided anew: 10, the first is train/00.jpg"]
    assert Counter(choose(make_images(*["val"] * 10))[0]) == {"train": 8, "val": 2}
    assert Counter(choose(make_images(*["test"] * 10))[0]) == {"train": 8, "val": 2}


def test_images_of_one_name_in_two_splits_are_divided_one_by_one() -> None:
    images = [AnnotatedImage(Path(f"{split}/{i}.jpg"), str(i), (), split=split) for split in "ab" for i in range(5)]
    splits, _ = choose(images)
    assert Counter(splits) == {"train": 8, "val": 2}
    names = find_names(images, splits, Notes())
    assert len({*zip(splits, names, strict=True)}) == 10


def test_all_are_divided_anew_if_asked() -> None:
    splits, notes = choose(make_images(*["train"] * 10, *["val"] * 5, *["test"] * 5), resplit=True, val=0.5)
    assert Counter(splits) == {"train": 10, "val": 10}
    assert notes == ["the export's images of test, train, val are divided anew: 20, the first is train/00.jpg"]


@pytest.mark.parametrize(
    ("splits", "settings", "sentence"),
    [
        (
            ["train", "val"],
            {"val": 0.1},
            r"has splits of its own \(train, val\); leave out val= and test= to keep them, or give resplit",
        ),
        (["train", "train", "train", "test"], {"test": 0.1}, "has a split test of its own; leave out test="),
        ([None] * 4, {"val": 1.0}, "val: 1"),
        ([None], {}, "1 image is too few for train and val"),
    ],
)
def test_what_cannot_be_divided_is_refused(splits: list[str | None], settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        choose(make_images(*splits), **settings)


def test_groups_stay_together() -> None:
    grouped = [AnnotatedImage(Path("x.jpg"), f"cam{i % 5}_{i}", ()) for i in range(20)]
    splits, _ = choose(grouped, group="[^_]+")
    assert Counter(splits) == {"train": 16, "val": 4}
    assert len({image.name[:4] for image, split in zip(grouped, splits, strict=True) if split == "val"}) == 1


def test_augmented_copies_of_roboflow_are_noted_unless_they_stay_together() -> None:
    images = [AnnotatedImage(Path("x.jpg"), f"{i // 2}_jpg.rf.{i:x}", ()) for i in range(20)]
    _, notes = choose(images)
    assert notes == [
        "pictures have augmented copies that may get into two splits; 'group=\"(.+)[.]rf[.]\"' keeps them together: "
        "10, the first is 0_jpg"
    ]
    splits, notes = choose(images, group="(.+)[.]rf[.]")
    assert (splits[::2], notes) == (splits[1::2], [])


def test_near_duplicates_stay_together(tmp_path: Path) -> None:

    generator = np.random.default_rng(0)
    images = []
    for scene in range(5):
        picture = cv2.resize(generator.integers(0, 255, (6, 6), np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)
        for frame in range(4):
            path = tmp_path / f"{frame}-{scene}.png"
            cv2.imwrite(str(path), np.clip(picture.astype(int) + frame, 0, 255).astype(np.uint8))
            images.append(AnnotatedImage(path, path.stem, ()))
    splits, _ = choose(images, near_duplicates=True)
    assert len({image.name[-1] for image, split in zip(images, splits, strict=True) if split == "val"}) == 1
    apart, _ = choose(images)
    assert len({image.name[-1] for image, split in zip(images, apart, strict=True) if split == "val"}) > 1


def test_names_are_unique_within_a_split() -> None:
    notes = Notes()
    images = [AnnotatedImage(Path(path), "a", ()) for path in ("a.jpg", "a.png", "b/a.jpg")]
    images.append(AnnotatedImage(Path("A.jpg"), "A", ()))
    assert find_names(images, ["train", "train", "val", "train"], notes) == ["a", "a-2", "a", "A-3"]
    assert notes.list_lines() == ["images share their name with another and get a number: 2, the first is a.png → a-2"]
