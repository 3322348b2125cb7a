"""labelme's JSON files: shapes, labels, where the images are, and what is refused."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, UNLABELED, Export, Notes, ReadSettings
from segkd.import_labels.formats.labelme import read_labelme
from tests.helpers.exports import draw_labels, paint, write_image

IDS = {"c": 0, "p": 1, "i": IGNORED}


def make_shape(label: str, points: Any, kind: str | None = "polygon", **others: Any) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
        **others,
    }


def write_json(
    path: Path, shapes: Any, image: str | None = None, size: tuple[int, int] = (6, 8), **others: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image or f"{path.stem}.png",
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        **others,
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def write_pair(path: Path, *shapes: Any) -> Path:
    write_image(path.with_suffix(".png"))
    return write_json(path, list(shapes))


def encode(image: Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def read(path: Path, **settings: Any) -> tuple[Export, list[str]]:
    notes = Notes()
    return read_labelme(path, ReadSettings(**settings), notes), notes.list_lines()


def draw(path: Path, **settings: Any) -> np.ndarray:
    (label,) = draw_labels(read(path, **settings)[0]).values()
    return label


MASK = encode(Image.fromarray(np.array([[0, 1, 1], [1, 0, 1]], np.uint8)))
MASK_OF_BITS = encode(Image.fromarray(np.array([[0, 1, 1], [1, 0, 1]], np.bool_)))
SHAPES = {
    "polygon": (make_shape("c", [[1, 1], [4, 1], [4, 3], [1, 3]]), "........ .ccc.... .ccc.... ........ ........ ........"),
    "no type": (make_shape("c", [[1, 1], [4, 1], [4, 3], [1, 3]], None), "........ .ccc.... .ccc.... ........ ........ ........"),
    "circle": (make_shape("c", [[4, 3], [4, 5]], "circle"), "........ ...cc... ..cccc.. ..cccc.. ...cc... ........"),
    "mask": (make_shape("c", [[2, 3], [4, 4]], "mask", mask=MASK), "........ ........ ........ ...cc... ..c.c... ........"),
    "mask of bits": (
        make_shape("c", [[1.6, 3.4], [4, 4]], "mask", mask=MASK_OF_BITS),
        "........ ........ ........ ...cc... ..c.c... ........",
    ),
    "mask far outside": (make_shape("c", [[1e300, 1], [1e301, 2]], "mask", mask=MASK), " ........" * 6),
    "mask over the edge": (
        make_shape("c", [[-1, -1], [1, 0]], "mask", mask=MASK),
        ".c...... ........ ........ ........ ........ ........",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_cover_the_pixels_counted_by_hand(name: str, tmp_path: Path) -> None:
    shape, picture = SHAPES[name]
    write_pair(tmp_path / "a.json", shape)
    np.testing.assert_array_equal(draw(tmp_path), paint(picture, IDS))


@pytest.mark.parametrize(
    "shape",
    [
        make_shape("c", [[1, 1], [4, 3]], "rectangle"),
        make_shape("c", [[4, 1], [1, 3]], "rectangle"),
        make_shape("c", [[1, 1], [4, 1], [4, 3], [1, 3]], "oriented_rectangle"),
    ],
)
def test_rectangles_are_boxes(shape: dict[str, Any], tmp_path: Path) -> None:
    file = write_pair(tmp_path / "a.json", shape)
    export, notes = read(tmp_path)
    assert export.images[0].content == ()
    assert notes == [
        f"boxes without an outline are left out; boxes=fill fills them: 1, the first is shape 1 ('c') of {file}"
    ]
    np.testing.assert_array_equal(
        draw(tmp_path, boxes="fill"), paint("........ .ccc.... .ccc.... ........ ........ ........", IDS)
    )


def test_later_shapes_lie_on_earlier_ones(tmp_path: Path) -> None:
    small, large = make_shape("p", [[1, 0], [2, 0], [2, 1], [1, 1]]), make_shape("c", [[0, 0], [3, 0], [3, 1], [0, 1]])
    write_pair(tmp_path / "over" / "a.json", large, small)
    write_pair(tmp_path / "under" / "a.json", small, large)
    assert draw(tmp_path / "over")[0, :4].tolist() == [0, 1, 0, UNLABELED]
    assert draw(tmp_path / "under")[0, :4].tolist() == [0, 0, 0, UNLABELED]


def test_what_has_no_area_is_named(tmp_path: Path) -> None:
    points = [[0, 0], [3, 3]]
    kinds = ["line", "linestrip", "point", "points", ["spiral"]]
    shapes = [make_shape("c", points, kind) for kind in kinds]
    shapes[0]["flags"] = {"occluded": True, "truncated": False}
    file = write_pair(tmp_path / "a.json", *shapes)
    assert read(tmp_path)[1] == [
        f"attributes are left out: 1, the first is shape 1 ('c') of {file}",
        *(
            f"shapes of the type {kind} have no area and are left out: 1, the first is shape {i} ('c') of {file}"
            for i, kind in enumerate(kinds[:4], 1)
        ),
        f"shapes of the type ['spiral'] are unknown and are left out: 1, the first is shape 5 ('c') of {file}",
    ]


SQUARE = [[0, 0], [2, 0], [2, 2], [0, 2]]


def test_labels_are_sorted_and_lose_the_numbers_of_instances(tmp_path: Path) -> None:
    file = write_pair(
        tmp_path / "a.json", *(make_shape(label, SQUARE) for label in ("tree", "car-12", "car-1", "T-x", "-7"))
    )
    export, notes = read(tmp_path)
    assert [entry.name for entry in export.classes] == ["-7", "T-x", "car", "tree"]
    (note,) = notes
    assert note == (
        "labels are read without the number at their end (list them in labels.txt to keep it): 2, "
        f"the first is 'car-12' of shape 2 of {file}"
    )


@pytest.mark.parametrize("name", ["labels.txt", "class_names.txt"])
def test_a_file_lists_the_labels_in_their_order(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("__ignore__\n_background_\nphase-2\ncar\nunused\n", encoding="utf-8")
    labels = ("car-3", "phase-2", "__ignore__")
    write_pair(
        tmp_path / "a.json",
        *(make_shape(label, [[x, 0], [x + 1, 0], [x + 1, 1], [x, 1]]) for x, label in enumerate(labels)),
    )
    export, notes = read(tmp_path)
    assert [entry.name for entry in export.classes] == ["_background_", "phase-2", "car", "unused"]
    assert export.background == "_background_"
    assert draw_labels(export)["a"][0, :4].tolist() == [2, 1, IGNORED, UNLABELED]
    assert [note.split(":")[0] for note in notes] == [
        "labels are read without the number at their end (list them in labels.txt to keep it)",
        "regions of labels such as void are ignored pixels",
    ]


def test_labels_that_the_file_does_not_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("car\n", encoding="utf-8")
    write_pair(tmp_path / "a.json", make_shape("tree-1", SQUARE))
    with pytest.raises(UserError, match="a region of a has the label 'tree-1', which the list of labels does not name"):
        read(tmp_path)


def test_two_lists_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncar\n", encoding="utf-8")
    (tmp_path / "class_names.txt").write_text("_background_\ncar\n", encoding="utf-8")
    write_pair(tmp_path / "a.json", make_shape("car", SQUARE))
    assert len(read(tmp_path)[0].classes) == 2
    (tmp_path / "class_names.txt").write_text("_background_\nbus\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds labels\.txt and class_names\.txt, which list other labels; remove one"):
        read(tmp_path)


def test_images_are_found_where_the_files_say_or_in_a_given_folder(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_json(root / "json" / "a.json", [], "..\\photos\\Straße [1].png")
    write_json(root / "json" / "b.json", [], "/home/other/b.png")
    write_image(root / "photos" / "Straße [1].png")
    write_image(root / "photos" / "b.png")
    write_image(root / "photos" / "c.png")
    export, notes = read(root)
    assert [image.path.name for image in export.images] == ["Straße [1].png", "b.png"]
    assert [image.name for image in export.images] == ["a", "b"]
    assert notes == [
        f"images are left out, for the annotations do not name them: 1, the first is {root / 'photos' / 'c.png'}"
    ]
    (root / "photos").rename(tmp_path / "elsewhere")
    assert read(root)[1] == ["images are missing and left out: 2, the first is ..\\photos\\Straße [1].png"]
    assert len(read(root, image_folder=tmp_path / "elsewhere")[0].images) == 2


def test_missing_images_are_taken_from_their_json_files(tmp_path: Path) -> None:
    photo = Image.fromarray(np.full((6, 8, 3), 90, np.uint8))
    file = write_json(tmp_path / "set" / "a.json", [], "a.jpg", imageData=encode(photo, "JPEG"))
    export, notes = read(tmp_path / "set", scratch_folder=tmp_path / "scratch")
    assert Image.open(export.images[0].path).size == (8, 6)
    assert export.images[0].path.is_relative_to(tmp_path / "scratch")
    assert notes == [f"images are missing and taken from their JSON files: 1, the first is {file}"]
    for name in ("../../../escaped.jpg", "..", "/", "\0"):
        write_json(tmp_path / "set" / "a.json", [], name, imageData=encode(photo, "JPEG"))
        path = read(tmp_path / "set", scratch_folder=tmp_path / "scratch")[0].images[0].path
        assert path.parent == tmp_path / "scratch"
    for data, message in (("%%%", "imageData of .* is no base64"), (base64.b64encode(b"text").decode(), "is no image")):
        write_json(tmp_path / "set" / "a.json", [], "a.jpg", imageData=data)
        with pytest.raises(UserError, match=message):
            read(tmp_path / "set", scratch_folder=tmp_path / "scratch")


def test_folders_are_splits_or_part_of_the_name(tmp_path: Path) -> None:
    for folder in ("set/train/cam1", "set/train/cam2", "set/valid/cam1"):
        write_pair(tmp_path / folder / "a.json")
    assert [(image.name, image.split) for image in read(tmp_path)[0].images] == [
        ("cam1/a", "train"),
        ("cam2/a", "train"),
        ("cam1/a", "valid"),
    ]


def test_one_file_alone_is_read(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.json", make_shape("c", SQUARE))
    write_pair(tmp_path / "b.json", make_shape("c", SQUARE))
    assert [image.name for image in read(tmp_path / "b.json")[0].images] == ["b"]


def test_other_json_files_are_left_out(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[1]", encoding="utf-8")
    export, notes = read(tmp_path)
    assert len(export.images) == 1
    assert notes == [f"JSON files that labelme did not write are left out: 1, the first is {tmp_path / 'b.json'}"]


FAULTS = {
    "no label": ([{"points": SQUARE}], r"shape 1 of .*a\.json has no label"),
    "no mapping": (["car"], r"shape 1 of .*a\.json has no label"),
    "ragged points": ([make_shape("c", [[1, 2], [3]])], r"shape 1 \('c'\) of .*a\.json: its points are \[\[1, 2\], \[3\]\]"),
    "no points": ([make_shape("c", None)], r"its points are None; a polygon needs \[\[x, y\], …\]"),
    "a circle of one point": ([make_shape("c", [[1, 2]], "circle")], r"a circle needs 2 \[x, y\]"),
    "a mask at no place": ([make_shape("c", [[float("nan"), 2], [3, 4]], "mask", mask=MASK)], "its points are"),
    "a mask that is no text": ([make_shape("c", [[1, 2], [3, 4]], "mask")], "the mask of shape 1 .* is no base64"),
    "a mask that is no base64": ([make_shape("c", [[1, 2], [3, 4]], "mask", mask="é")], "is no base64; export it again"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_damaged_shapes_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    shapes, message = FAULTS[name]
    write_image(tmp_path / "a.png")
    write_json(tmp_path / "a.json", shapes)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_a_damaged_mask_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.json", make_shape("c", [[1, 2], [3, 4]], "mask", mask=MASK[: len(MASK) // 2 // 4 * 4]))
    with pytest.raises(UserError, match=r"the mask of shape 1 \('c'\) of .* is not a complete image"):
        draw(tmp_path)


def test_folders_without_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no JSON files; labelme writes one beside each image"):
        read(tmp_path)
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is no valid JSON"):
        read(tmp_path)


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.json")
    write_json(tmp_path / "b.json", [], "a.png")
    with pytest.raises(UserError, match=r"a\.json and .*b\.json both annotate .*a\.png; remove one"):
        read(tmp_path)
