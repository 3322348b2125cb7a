"""'Segmentation mask 1.1' of CVAT: its pixels come back as they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, UNLABELED, Export, Notes, ReadSettings
from segkd.import_labels.formats.cvat import read_cvat
from tests.helpers.exports import draw_labels, write_image

LABEL_MAP = """# label:color_rgb:parts:actions
background:0,0,0::
car:10,20,30::
traffic: light:64,0,128:top,bottom:blink
void:255,255,255::
"""
COLORS = [(0, 0, 0), (10, 20, 30), (64, 0, 128), (255, 255, 255)]
MEANINGS = [UNLABELED, 1, 2, IGNORED]


def write_mask(path: Path, label: Array, form: str = "palette") -> None:
    """Write a mask as CVAT does: with a palette, as colors, or as indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "colors":
        Image.fromarray(np.array(COLORS, np.uint8)[label]).save(path)
        return
    image = Image.fromarray(label.astype(np.uint8), "L" if form == "indices" else "P")
    if form == "palette":
        image.putpalette([channel for color in COLORS for channel in color])
    image.save(path)


def write_export(root: Path, lists: dict[str, list[str]], form: str = "palette") -> dict[str, Array]:
    """Write an export with an image and a mask of each name, and return the masks as indices of `COLORS`."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    (root / "labelmap.txt").write_text(LABEL_MAP, encoding="utf-8")
    labels = {}
    for split, names in lists.items():
        listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for name in names:
            labels[name] = generator.integers(0, 4, (6, 8)).astype(np.uint8)
            for folder in ("SegmentationClass", "SegmentationObject"):
                write_mask(root / folder / f"{name}.png", labels[name], form)
            write_image(root / "JPEGImages" / f"{name}.jpg")
    return labels


def read(root: Path, **settings: Path) -> tuple[Export, list[str]]:
    notes = Notes()
    export = read_cvat(root, ReadSettings(**settings), notes)
    return export, notes.list_lines()


@pytest.mark.parametrize("form", ["palette", "colors", "indices"])
def test_pixels_come_back_exactly(form: str, tmp_path: Path) -> None:
    labels = write_export(tmp_path, {"default": ["a", "ordner/Straße 1 [x]"]}, form)
    export, notes = read(tmp_path)
    assert [*export.classes] == [("background", (0, 0, 0)), ("car", (10, 20, 30)), ("traffic: light", (64, 0, 128))]
    assert export.background == "background"
    drawn = draw_labels(export)
    assert drawn.keys() == labels.keys()
    for name, label in labels.items():
        np.testing.assert_array_equal(drawn[name], np.array(MEANINGS)[label])
    assert notes == [
        f"pixels of labels such as void are ignored: 1, the first is 'void' in {tmp_path / 'labelmap.txt'}"
    ]


def test_lists_are_splits(tmp_path: Path) -> None:
    write_export(tmp_path, {"Train": ["a", "b"], "Validation": ["c"], "default": ["d"]})
    union = tmp_path / "ImageSets" / "Segmentation" / "trainval.txt"
    union.write_text("a\nb\nc\n", encoding="utf-8")
    assert [(image.name, image.split) for image in read(tmp_path)[0].images] == [
        ("a", "Train"),
        ("b", "Train"),
        ("c", "Validation"),
        ("d", None),
    ]


def test_images_without_a_mask_are_empty_and_masks_in_no_list_are_left_out(tmp_path: Path) -> None:
    write_export(tmp_path, {"default": ["a", "b"]})
    (tmp_path / "SegmentationClass" / "a.png").rename(tmp_path / "SegmentationClass" / "c.png")
    export, notes = read(tmp_path)
    assert [(image.name, callable(image.content)) for image in export.images] == [("a", False), ("b", True)]
    assert export.images[0].content == ()
    assert f"masks are in no list of ImageSets/Segmentation and left out: 1, the first is {tmp_path}" in notes[1]


def test_without_lists_all_masks_are_read(tmp_path: Path) -> None:
    write_export(tmp_path, {"default": ["a", "b"]})
    (tmp_path / "ImageSets" / "Segmentation" / "default.txt").unlink()
    assert [(image.name, image.split) for image in read(tmp_path)[0].images] == [("a", None), ("b", None)]


def test_an_export_without_images_needs_their_folder(tmp_path: Path) -> None:
    write_export(tmp_path / "export", {"default": ["a", "b"]})
    (tmp_path / "export" / "JPEGImages").rename(tmp_path / "photos")
    with pytest.raises(
        UserError, match=r"holds no images .* export again with 'Save images', or give image_folder=DIR"
    ):
        read(tmp_path / "export")
    assert len(read(tmp_path / "export", image_folder=tmp_path / "photos")[0].images) == 2
    (tmp_path / "photos" / "b.jpg").unlink()
    export, notes = read(tmp_path / "export", image_folder=tmp_path / "photos")
    assert [image.name for image in export.images] == ["a"]
    assert "images are missing and left out: 1, the first is b" in notes


def test_the_export_may_lie_in_one_more_folder(tmp_path: Path) -> None:
    write_export(tmp_path / "task", {"default": ["a"]})
    (tmp_path / "__MACOSX").mkdir()
    assert len(read(tmp_path)[0].images) == 1


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("palette", "holds the colors #636363, which .*labelmap.txt does not name"),
        ("indices", "holds the ids 9, which"),
    ],
)
def test_unknown_values_are_refused(form: str, message: str, tmp_path: Path) -> None:
    write_export(tmp_path, {"default": ["a"]}, form)
    image = Image.fromarray(np.full((6, 8), 9, np.uint8), "L" if form == "indices" else "P")
    if form == "palette":
        image.putpalette([99] * 30)
    image.save(tmp_path / "SegmentationClass" / "a.png")
    with pytest.raises(UserError, match=message):
        draw_labels(read(tmp_path)[0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("car:1,2,3::\nbus:1,2,3::\n", r"gives 'bus' the color of 'car' \(1,2,3\); give each label its own in CVAT"),
        ("car:1,2,300::\n", r"gives 'car' a color beyond 255 \(1,2,300\)"),
        ("car\nbus\n", "has no line such as car:128,0,0::"),
        (None, r"there is no .*labelmap\.txt, which names the colors"),
    ],
)
def test_label_maps_that_cannot_be_used_are_refused(lines: str | None, message: str, tmp_path: Path) -> None:
    write_export(tmp_path, {"default": ["a"]})
    (tmp_path / "labelmap.txt").unlink() if lines is None else (tmp_path / "labelmap.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_an_image_in_two_lists_is_refused(tmp_path: Path) -> None:
    write_export(tmp_path, {"Train": ["a", "a"], "Test": ["b"]})
    assert len(read(tmp_path)[0].images) == 2
    write_export(tmp_path, {"Train": ["a"], "Test": ["a"]})
    with pytest.raises(UserError, match=r"a is in Test\.txt and Train\.txt of .*; leave it in one"):
        read(tmp_path)


def test_masks_and_shapes_together_are_refused(tmp_path: Path) -> None:
    write_export(tmp_path, {"default": ["a"]})
    (tmp_path / "annotations.xml").write_text("<annotations/>", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds annotations\.xml and SegmentationClass; give the folder of one export"):
        read(tmp_path)
