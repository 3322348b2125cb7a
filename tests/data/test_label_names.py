"""Names of labels: suffixes, and labels under another name than expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.data.label_names import find_misnamed_labels, find_missing_labels, find_same_names, pair_with_labels
from tests.data.test_discovery import touch


def pair(root: Path, images: list[str], labels: list[str], suffix: str = ".png") -> dict[str, str | None]:
    """Return image → label, or None if it has none."""
    touch(*(root / "images" / name for name in images), *(root / "labels" / name for name in labels))
    pairs = pair_with_labels([root / "images" / name for name in images], root / "images", root / "labels", suffix)
    return {
        image.name: label.relative_to(root / "labels").as_posix() if label.is_file() else None for image, label in pairs
    }


@pytest.mark.parametrize(
    ("image", "label", "suffix"),
    [
        ("0.jpg", "0.png", ".png"),
        ("0.JPG", "0.PNG", ".png"),
        ("0.jpg", "0.jpg.png", ".png"),  # Supervisely
        ("0.jpg", "0.jpg.png", ".jpg.png"),
        ("0.jpg", "0_mask.png", "_mask.png"),  # Roboflow
        ("0.jpg", "0_Mask.PNG", "_mask.png"),
        ("0.jpg", "0.tif", ".tif"),
        ("a.b_jpg.rf.1.jpg", "a.b_jpg.rf.1_mask.png", "_mask.png"),
        ("sub/0.png", "sub/0.png", ".png"),
    ],
)
def test_label_has_the_name_of_its_image_and_the_suffix(tmp_path: Path, image: str, label: str, suffix: str) -> None:
    assert pair(tmp_path, [image], [label], suffix) == {Path(image).name: label}


def test_exact_names_come_first_and_stems_keep_their_case(tmp_path: Path) -> None:
    assert pair(tmp_path, ["0.jpg"], ["0.PNG", "0.png", "0.jpg.png"]) == {"0.jpg": "0.png"}
    assert pair(tmp_path, ["a.jpg"], ["A.png"]) == {"a.jpg": None}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("labels/train/0_mask.png", "labels/train/0_mask.png is there: give `label_suffix: _mask.png` in classes.yaml"),
        ("labels/train/0.tif", "give `label_suffix: .tif` in"),
        ("labels/train/0.jpg", "JPEG changes ids, so export the labels as PNG; .* give `label_suffix: .jpg`"),
        ("labels/train/0.gif", "0.gif is there: convert the labels to PNG"),
        ("masks/train/0.png", "masks/train/0.png is there: labels are read from .*labels/train, so move them there"),
        ("annotations/0_gt.png", "annotations/0_gt.png is there: labels are read from"),
        ("labels/0.png", "labels/0.png is there: labels are read from"),
        ("images/train/0_mask.png", "images/train/0_mask.png is there: labels are read from"),
    ],
)
def test_labels_under_another_name_are_found(tmp_path: Path, label: str, message: str) -> None:
    touch(tmp_path / "images/train/0.png", tmp_path / label)
    images = tmp_path / "images/train"
    pairs = [(path, tmp_path / "labels/train" / path.name) for path in sorted(images.iterdir())]
    folders = [tmp_path / name for name in ("labels/train", "masks/train", "labels", "annotations", "images/train")]
    found = find_misnamed_labels(pairs, images, folders)
    assert found == {images / "0.png": tmp_path / label}
    (sentence,) = find_missing_labels("farm", pairs, found)
    assert sentence.startswith(
        f"{len(pairs)} of {len(pairs)} images of farm have no label; the first missing label is "
    )
    assert re.search(message, sentence), sentence


def test_labels_of_other_images_are_not_offered(tmp_path: Path) -> None:
    """`1_2.png` is the label of `1_2`, and not of `1`."""
    images = [tmp_path / "images" / name for name in ("1.png", "1_2.png")]
    labels = [tmp_path / "labels" / name for name in ("1.png", "1_2.png")]
    touch(*images, labels[1])
    pairs = list(zip(images, labels, strict=True))
    assert find_misnamed_labels(pairs, tmp_path / "images", [tmp_path / "labels"]) == {}
    assert find_missing_labels("farm", pairs, {}) == [
        f"1 of 2 images of farm have no label; the first missing label is {labels[0]}"
    ]
    touch(labels[0])
    assert find_missing_labels("farm", pairs, {}) == []


def test_images_that_share_a_name_are_found() -> None:
    pairs = [(Path(name), Path("label.png")) for name in ("a.jpg", "a.png", "b.png", "b.png")]
    assert find_same_names(pairs) == {
        Path("a.png"): "a.jpg and a.png differ only in their suffix; rename or remove one"
    }


STEMS = st.text(st.sampled_from("ab01_-. "), min_size=1, max_size=6).map(lambda text: f"x{text}x")


@settings(derandomize=True, max_examples=30, deadline=None)
@given(stems=st.sets(STEMS, min_size=1), ending=st.sampled_from(["_mask.png", ".tif", ".jpg.png", "-gt.PNG"]))
def test_the_offered_suffix_pairs_all(tmp_path_factory: pytest.TempPathFactory, stems: set[str], ending: str) -> None:
    """What the sentence says to write makes the dataset complete."""
    root = tmp_path_factory.mktemp("names")
    images = [root / "images" / f"{stem}.bmp" for stem in sorted(stems)]
    touch(*images, *(root / "labels" / f"{image.stem}{ending}" for image in images))
    pairs = pair_with_labels(images, root / "images", root / "labels")
    (sentence,) = find_missing_labels("farm", pairs, find_misnamed_labels(pairs, root / "images", [root / "labels"]))
    suffix = sentence.partition("`label_suffix: ")[2].partition("`")[0]
    assert suffix == ending
    assert all(label.is_file() for _, label in pair_with_labels(images, root / "images", root / "labels", suffix))
