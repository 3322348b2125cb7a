"""PASCAL VOC: lists of names in every form that people have them, and files of other suffixes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from segkd.data.voc import VOC
from tests.helpers.fake_datasets import write_voc

NAMES = ["2007_000000", "2007_000001"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path)
    return tmp_path


def write_list(root: Path, content: bytes) -> None:
    (root / "ImageSets/Segmentation/train.txt").write_bytes(content)


def read_names(root: Path) -> list[str]:
    data = VOC(root, "train")
    assert [label.stem for _, label in data.files] == [image.stem for image, _ in data.files]
    assert len([*data]) == len(data)  # all files are there
    return [data.get_name(i) for i in range(len(data))]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(NAMES).encode("utf-8-sig"),
        "\r\n".join([*NAMES, "", ""]).encode(),
        "\n".join(NAMES).encode("utf-16"),
        "\n".join(f"JPEGImages/{name}.jpg SegmentationClass/{name}.png" for name in NAMES).encode(),
        "\n".join(f"/JPEGImages/{name}.jpg /SegmentationClass/{name}.png" for name in NAMES).encode(),
    ],
)
def test_lists_of_other_forms_are_read(root: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    write_list(root, content)
    assert read_names(root) == NAMES
    assert caplog.messages == []


def test_flags_of_a_list_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The list of one class has 1 or -1 after each name."""
    write_list(root, "\n".join(f"{name} {flag}" for name, flag in zip(NAMES, ("-1", " 1"), strict=True)).encode())
    assert read_names(root) == NAMES
    assert caplog.messages == [
        f"{root}/ImageSets/Segmentation/train.txt: a line is the name of an image; '-1' after it, and 1 more, is not read"
    ]


def test_names_may_have_spaces(root: Path) -> None:
    for path in (root / "JPEGImages/2007_000000.jpg", root / "SegmentationClass/2007_000000.png"):
        path.rename(path.with_stem("my image 1"))
    write_list(root, b"my image 1\n")
    assert read_names(root) == ["my image 1"]


def test_images_and_labels_may_have_other_suffixes(root: Path) -> None:
    image, label = root / "JPEGImages/2007_000000.jpg", root / "SegmentationClass/2007_000000.png"
    Image.open(image).save(image.with_suffix(".BMP"))
    image.unlink()
    label.rename(label.with_suffix(".PNG"))
    assert read_names(root) == NAMES
    assert VOC(root, "train").find_labels_without_image("train") == []
    image.with_suffix(".BMP").unlink()
    assert VOC(root, "train", complete=False).find_labels_without_image("train") == [label.with_suffix(".PNG")]


def test_an_image_of_another_format_in_its_place_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, also where two splits are one; images that no list names are nobody's."""
    for name in ("other.heic", "2007_000001.heic"):
        (root / "JPEGImages" / name).touch()
    VOC(root, "train")
    assert caplog.messages == []
    (root / "JPEGImages/2007_000001.jpg").unlink()
    VOC(root, "trainval")
    (message,) = caplog.messages
    assert message.startswith(f"{root}/JPEGImages/2007_000001.heic is not read, for the suffix is none of .png")
