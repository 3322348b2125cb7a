"""Images and label files in folders: which belong together, and what the values mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, Export, Notes, ReadSettings
from segkd.import_labels.formats.folder import read_folder
from tests.helpers.exports import draw_labels, write_image

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)]
LABEL = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def write_label(path: Path, label: Array = LABEL, form: str = "ids") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "colors":
        Image.fromarray(np.array(PALETTE, np.uint8)[label]).save(path)
        return path
    image = Image.fromarray(label, "P" if form == "palette" else "L")
    if form == "palette":
        colors = [PALETTE[3] if index == 255 else PALETTE[index % 3] for index in range(256)]
        image.putpalette([channel for color in colors for channel in color])
    image.save(path)
    return path


def write_files(root: Path, *names: str, form: str = "ids") -> None:
    """Write an image for each name, and a label for each pair 'image|label'."""
    for name in names:
        image, _, label = name.partition("|")
        if image:
            write_image(root / image, LABEL.shape)
        if label:
            write_label(root / label, form=form)


def write_table(root: Path, **keys: Any) -> None:
    table = {"classes": [{"name": name, "id": i} for i, name in enumerate("xyz")], "size": [2, 3], **keys}
    (root / "classes.yaml").write_text(yaml.safe_dump(table), encoding="utf-8")


def read(root: Path, **settings: Any) -> tuple[Export, list[str]]:
    notes = Notes()
    return read_folder(root, ReadSettings(**settings), notes), notes.list_lines()


def list_images(root: Path, **settings: Any) -> list[tuple[str, str, str | None]]:
    """Return the path of each image below the folder, its name, and its split."""
    return [(i.path.relative_to(root).as_posix(), i.name, i.split) for i in read(root, **settings)[0].images]


LAYOUTS = {
    "folders": (["images/a.jpg|masks/a.png"], [("images/a.jpg", "a", None)]),
    "names with an ending": (["images/a.jpg|Labels/a_mask.png"], [("images/a.jpg", "a", None)]),
    "names with the suffix of the image": (["img/a.b.jpg|gt/a.b.jpg.png"], [("img/a.b.jpg", "a.b", None)]),
    "splits inside": (
        ["images/train/a.jpg|labels/train/a.png", "images/valid/a.jpg|labels/valid/a.png"],
        [("images/train/a.jpg", "a", "train"), ("images/valid/a.jpg", "a", "valid")],
    ),
    "splits outside": (
        ["train/images/a.jpg|train/masks/a.png", "test/images/a.jpg|test/masks/a.png"],
        [("test/images/a.jpg", "a", "test"), ("train/images/a.jpg", "a", "train")],
    ),
    "splits in the names of folders": (
        ["train_images/a.jpg|train_labels/a.png", "val-img/b.jpg|val-seg/b.png"],
        [("train_images/a.jpg", "a", "train"), ("val-img/b.jpg", "b", "val")],
    ),
    "SegNet's": (["train/a.png|trainannot/a.png"], [("train/a.png", "a", "train")]),
    "beside, as PNG of the same name": (["a.jpg|a.png", "b.JPG|b.png"], [("a.jpg", "a", None), ("b.JPG", "b", None)]),
    "beside, with an ending": (
        ["x/a.png|x/a_mask.png", "x/a_1.png|x/a_1_mask.png"],
        [("x/a.png", "a", None), ("x/a_1.png", "a_1", None)],
    ),
    "groups": (
        ["images/cam1/a.jpg|masks/cam1/a.png", "images/cam2/a.jpg|masks/cam2/a.png"],
        [("images/cam1/a.jpg", "cam1/a", None), ("images/cam2/a.jpg", "cam2/a", None)],
    ),
    "labels in one folder": (["images/cam1/a.jpg|masks/a.png"], [("images/cam1/a.jpg", "a", None)]),
    "brackets, blanks and letters": (
        ["images/Straße [1] é.jpg|masks/Straße [1] é.png"],
        [("images/Straße [1] é.jpg", "Straße [1] é", None)],
    ),
    "one more folder": (["set/images/a.jpg|set/masks/a.png"], [("set/images/a.jpg", "a", None)]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_and_labels_are_paired_in_the_usual_layouts(name: str, tmp_path: Path) -> None:
    files, expected = LAYOUTS[name]
    write_files(tmp_path, *files)
    assert list_images(tmp_path) == expected
    export, notes = read(tmp_path)
    for label in draw_labels(export).values():
        np.testing.assert_array_equal(label, LABEL)
    assert notes == ["classes have no name; name them in the classes.yaml that is written: 3, the first is 'class 0'"]


def test_the_layout_of_voc_with_its_lists(tmp_path: Path) -> None:
    names = [f"JPEGImages/{name}.jpg|SegmentationClass/{name}.png" for name in "abc"]
    write_files(tmp_path, *names, "JPEGImages/d.jpg", "|SegmentationObject/a.png", form="palette")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, listed in (("train", "a\nb\n"), ("val", "c\n"), ("trainval", "a\nb\nc\n")):
        (lists / f"{split}.txt").write_text(listed, encoding="utf-8")
    write_label(tmp_path / "SegmentationClass" / "a.png", np.array([[0, 1, 255], [2, 2, 255]], np.uint8), "palette")
    export, notes = read(tmp_path)
    assert [(image.name, image.split) for image in export.images] == [("a", "train"), ("b", "train"), ("c", "val")]
    assert [entry.color for entry in export.classes] == PALETTE[:3]
    assert draw_labels(export)["a"].tolist() == [[0, 1, IGNORED], [2, 2, IGNORED]]
    assert notes[0] == f"images without a label are left out: 1, the first is {tmp_path / 'JPEGImages' / 'd.jpg'}"


@pytest.mark.parametrize("form", ["ids", "palette", "colors"])
def test_labels_may_be_ids_a_palette_or_colors(form: str, tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png", form=form)
    export, _ = read(tmp_path)
    order = {"ids": [0, 1, 2], "palette": [0, 1, 2], "colors": [0, 2, 1]}[form]  # colors are sorted by red, green, blue
    np.testing.assert_array_equal(draw_labels(export)["a"], np.array(order)[LABEL])
    assert export.is_complete


def test_classes_yaml_says_what_values_mean(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png")
    classes = [{"name": "soil", "id": 2, "color": [9, 8, 7]}, {"name": "crop", "id": 0}]
    write_table(tmp_path, classes=classes, ignore=[1], splits={"val": 0.5})
    export, notes = read(tmp_path)
    assert [*export.classes] == [("soil", (9, 8, 7)), ("crop", None)]
    assert draw_labels(export)["a"].tolist() == [[1, IGNORED, 0], [0, IGNORED, 1]]
    assert notes == [
        f"the key splits of classes.yaml is not used; give val=, test=, seed= and group=: 1, the first is {tmp_path / 'classes.yaml'}"
    ]
    write_table(tmp_path, classes=classes)
    with pytest.raises(UserError, match=r"masks/a\.png holds the ids 1, which .*classes\.yaml does not name"):
        draw_labels(read(tmp_path)[0])


def test_a_label_map_names_colors(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png", form="colors")
    lines = "background:0,0,0::\ncar:128,0,0::\nvoid:0,128,0::\nunused:9,9,9::\n"
    (tmp_path / "labelmap.txt").write_text(lines, encoding="utf-8")
    export, notes = read(tmp_path)
    assert [*export.classes] == [("background", (0, 0, 0)), ("car", (128, 0, 0))]
    assert export.background == "background"
    assert draw_labels(export)["a"].tolist() == [[0, 1, IGNORED], [IGNORED, 1, 0]]
    assert notes == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_names.txt", "_background_\ncar\nbus\n"),
        ("_classes.csv", "Pixel Value, Class\n0, _background_\n1, car\n2, bus\n"),
    ],
)
def test_files_of_tools_name_ids(name: str, text: str, tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png")
    (tmp_path / name).write_text(text, encoding="utf-8")
    export, notes = read(tmp_path)
    assert [entry.name for entry in export.classes] == ["_background_", "car", "bus"]
    assert notes == []


def test_files_that_name_classes_differently_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png")
    write_table(
        tmp_path, classes=[{"name": name, "color": [*color]} for name, color in zip("xyz", PALETTE, strict=False)]
    )
    (tmp_path / "labelmap.txt").write_text("x:0,0,0::\ny:128,0,0::\n", encoding="utf-8")
    assert len(read(tmp_path)[0].classes) == 3
    (tmp_path / "labelmap.txt").write_text("x:0,0,0::\ncar:128,0,0::\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"classes\.yaml and labelmap\.txt of .* name the color \(128, 0, 0\) 'y' and 'car'"
    ):
        read(tmp_path)
    (tmp_path / "masks" / "labelmap.txt").write_text("y:128,0,0::\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"labelmap\.txt and .*masks/labelmap\.txt name the color \(128, 0, 0\) 'car' and 'y'"
    ):
        read(tmp_path)
    for file in tmp_path.rglob("labelmap.txt"):
        file.unlink()
    (tmp_path / "class_names.txt").write_text("x\ny\nbus\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"classes\.yaml of .* names the id 2 'z', and another file there 'bus'"):
        read(tmp_path)


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    write_files(tmp_path, "photos/train/a.jpg|set/train/a.png", "photos/val/a.jpg|set/val/a.png")
    export, _ = read(tmp_path / "set", image_folder=tmp_path / "photos")
    assert [(image.name, image.split) for image in export.images] == [("a", "train"), ("a", "val")]


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png", "images/b.jpg|masks/c_2.png", "images/c.jpg", "other/d.jpg")
    (tmp_path / "images" / "e.gif").write_bytes(b"GIF89a")
    _, notes = read(tmp_path)
    assert notes[:4] == [
        f"images are left out, for segkd does not read their format: 1, the first is {tmp_path / 'images' / 'e.gif'}",
        f"images outside the folders of images are left out: 1, the first is {tmp_path / 'other' / 'd.jpg'}",
        f"labels without an image are left out: 1, the first is {tmp_path / 'masks' / 'c_2.png'}",
        f"images without a label are left out: 2, the first is {tmp_path / 'images' / 'b.jpg'}",
    ]


def test_one_of_several_labels_is_taken_only_if_its_name_says_so(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png", "|masks/a_color.png")
    export, notes = read(tmp_path)
    assert len(export.images) == 1
    assert f"files that may be labels, too, are left out: 1, the first is {tmp_path / 'masks' / 'a_color.png'}" in notes
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a_ids.png")
    with pytest.raises(UserError, match=r"a_color\.png and .*a_ids\.png both may be the label of .*a\.jpg"):
        read(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.png", "images/a.bmp")
    with pytest.raises(
        UserError, match=r"a\.bmp and .*a\.jpg differ only in their suffix or folder; rename or remove one"
    ):
        read(tmp_path)


def test_folders_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no labels; put them into a folder such as masks"):
        read(tmp_path)
    write_files(tmp_path, "a.jpg", "b.png", "b_1.png")
    with pytest.raises(UserError, match="holds no labels"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"a\.jpg is a file; give the folder"):
        read(tmp_path / "a.jpg")


def test_jpegs_are_no_labels(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.jpg|masks/a.jpg")
    with pytest.raises(UserError, match=r"masks/a\.jpg and the other labels are JPEGs, .*; export them as PNG"):
        read(tmp_path)
    write_files(tmp_path, "|masks/a.png")
    assert (
        f"JPEGs among the labels are left out, for compression changes ids: 1, the first is {tmp_path}"
        in read(tmp_path)[1][0]
    )


def test_photographs_in_the_folder_of_labels_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg", (40, 40))
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    (tmp_path / "masks").mkdir()
    Image.fromarray(noise).save(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match="hold too many values to be classes"):
        read(tmp_path)
