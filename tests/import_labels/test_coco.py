"""`from=coco`: hand-drawn files in the true layout, what is noted, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, UNLABELED, Export, Notes, ReadSettings
from segkd.import_labels.formats.coco import read_coco
from segkd.import_labels.formats.coco_outlines import are_outlines_indices
from tests.helpers.exports import draw_labels, paint, write_image

CATEGORIES = [
    {"id": 3, "name": "car", "supercategory": "thing"},
    {"id": 11, "name": "person", "supercategory": "thing"},
]
VALUES = {"c": 0, "p": 1, "-": IGNORED}
CAR = {"id": 1, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]], "bbox": [1, 1, 4, 3], "iscrowd": 0}
PERSON = {"id": 2, "category_id": 11, "segmentation": [[4, 2, 6, 2, 6, 3, 4, 3]], "bbox": [4, 2, 2, 1], "iscrowd": 0}
BOX = {"id": 3, "category_id": 11, "segmentation": [], "bbox": [6, 0, 2, 3], "iscrowd": 0}
CROWD_RLE = {"size": [6, 8], "counts": [36, 12]}  # the last two columns
CROWD = {"id": 4, "category_id": 11, "segmentation": CROWD_RLE, "bbox": [6, 0, 2, 6], "iscrowd": 1}
EMPTY = "........ " * 6


def make_file(*annotations: dict[str, Any], name: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    image = {"id": 7, "file_name": name, "height": 6, "width": 8}
    content = {"images": [image], "categories": CATEGORIES, "annotations": [{"image_id": 7, **a} for a in annotations]}
    return {**content, **changes}


def write_export(
    root: Path, content: Any, file: str = "annotations/instances_default.json", image: str = "images/a.jpg"
) -> Path:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    write_image(root / image)
    return root


def read(root: Path, **settings: Any) -> tuple[Export, list[str]]:
    notes = Notes()
    export = read_coco(root, ReadSettings(**settings), notes)
    draw_labels(export, notes)
    return export, notes.list_lines()


@pytest.mark.parametrize(
    ("annotation", "picture"),
    [
        (CAR, "........ .cccc... .cccc... .cccc... ........ ........"),
        (PERSON, "........ ........ ....pp.. ........ ........ ........"),
        (
            {**CAR, "segmentation": [[0, 0, 2, 0, 2, 1, 0, 1], [6, 5, 8, 5, 8, 6, 6, 6]]},
            "cc...... ........ ........ ........ ........ ......cc",
        ),
        ({**CAR, "segmentation": [0, 0, 2, 0, 2, 1, 0, 1]}, "cc...... ........ ........ ........ ........ ........"),
        (
            {**CAR, "segmentation": {"size": [6, 8], "counts": [6, 3, 3, 3, 33]}},
            ".cc..... .cc..... .cc..... ........ ........ ........",
        ),
        (
            {**CAR, "segmentation": {"size": [6, 8], "counts": "6330n0"}},
            ".cc..... .cc..... .cc..... ........ ........ ........",
        ),
    ],
    ids=["polygon", "second category", "two polygons", "one flat polygon", "RLE", "compressed RLE"],
)
def test_masks(tmp_path: Path, annotation: dict[str, Any], picture: str) -> None:
    export, notes = read(write_export(tmp_path, make_file(annotation)))
    assert [entry.name for entry in export.classes] == ["car", "person"]
    np.testing.assert_array_equal(draw_labels(export)["a"], paint(picture, VALUES))
    assert notes == []


def test_smaller_objects_lie_on_larger_ones(tmp_path: Path) -> None:
    for i, pair in enumerate([(CAR, PERSON), (PERSON, CAR)]):
        export, _ = read(write_export(tmp_path / str(i), make_file(*pair)))
        expected = paint("........ .cccc... .cccpp.. .cccc... ........ ........", VALUES)
        np.testing.assert_array_equal(draw_labels(export)["a"], expected)


@pytest.mark.parametrize(
    ("crowd", "picture", "fate"),
    [
        ("ignore", "......-- " * 6, "ignored"),
        ("fill", "......pp " * 6, "filled as objects"),
        ("skip", EMPTY, "left out"),
    ],
)
def test_crowd_regions(tmp_path: Path, crowd: str, picture: str, fate: str) -> None:
    export, notes = read(write_export(tmp_path, make_file(CROWD)), crowd=crowd)
    np.testing.assert_array_equal(draw_labels(export)["a"], paint(picture, VALUES))
    file = tmp_path / "annotations/instances_default.json"
    assert notes == [f"crowd regions are {fate}: 1, the first is annotation 4 of a.jpg in {file}"]


@pytest.mark.parametrize(
    ("boxes", "picture", "fate"),
    [
        ("skip", EMPTY, "left out; boxes=fill fills them"),
        ("fill", "......pp " * 3 + "........ " * 3, "filled"),
    ],
)
def test_boxes(tmp_path: Path, boxes: str, picture: str, fate: str) -> None:
    export, notes = read(write_export(tmp_path, make_file(BOX)), boxes=boxes)
    np.testing.assert_array_equal(draw_labels(export)["a"], paint(picture, VALUES))
    assert [line.partition(": ")[0] for line in notes] == [f"boxes without an outline are {fate}"]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (make_file({**CAR, "keypoints": [3, 2, 2], "num_keypoints": 1}), "keypoints are left out: 1, "),
        (
            make_file({**CAR, "attributes": {"occluded": False, "color": "red"}}),
            "attributes are left out: 1, the first is color of ",
        ),
        (make_file({**CAR, "segmentation": [[1, 1, 2]]}), "outlines that are no lists of x and y are left out: 1, "),
        (make_file({**CAR, "segmentation": [["a", "b"]]}), "outlines that are no lists of x and y are left out: 1, "),
        (make_file({**CAR, "segmentation": [[1, 1, 2, 2]]}), "outlines of fewer than three points are left out: 1, "),
        (
            make_file({**CAR, "segmentation": [[1, 1, 20, 1, 20, 4, 1, 4]]}),
            "outlines leave their image by more than a pixel and are cut off: 1, ",
        ),
        (make_file({**CAR, "segmentation": None, "bbox": None}), "annotations without an outline are left out: 1, "),
        (
            make_file({**CAR, "image_id": 99}),
            "annotations of images that their file does not list are left out: 1, the first is image 99 in ",
        ),
        (
            make_file(
                CAR, images=[*make_file()["images"], {"id": 8, "file_name": "gone.jpg", "height": 6, "width": 8}]
            ),
            "images are missing and left out: 1, the first is gone.jpg",
        ),
        (
            make_file(CAR, images=[*make_file()["images"], {"id": 8, "file_name": "a.jpg", "height": 6, "width": 8}]),
            "images are listed twice, and their regions put together: 1, ",
        ),
        (
            make_file({**CAR, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}),
            "exports have outlines whose points are pixel indices, ",
        ),
        (
            make_file(CAR, categories=[{"id": 0, "name": "thing", "supercategory": "none"}, *CATEGORIES]),
            "categories that are only the heading of others are left out: 1, the first is thing",
        ),
    ],
)
def test_what_is_left_out_or_changed_is_noted(tmp_path: Path, content: dict[str, Any], note: str) -> None:
    export, notes = read(write_export(tmp_path, content))
    assert any(line.startswith(note) for line in notes), notes
    assert [entry.name for entry in export.classes] == ["car", "person"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is no valid JSON"),
        ("[" * 100_000, "is no valid JSON"),
        ([], "is not COCO's instances, a JSON file with images, annotations and categories"),
        ({"images": [], "annotations": []}, "is not COCO's instances"),
        (make_file(images=[1]), "is not COCO's instances"),
        (make_file({"segments_info": []}), "is a panoptic annotation, which is not read"),
        (
            make_file({**CAR, "category_id": 1}),
            r"annotation 1 of a.jpg in .* is of category 1, which the file does not list \(3 car, 11 person\)",
        ),
        (make_file({**CAR, "category_id": [3]}), r"is of category \[3\]"),
        (make_file(categories=[*CATEGORIES, CATEGORIES[0]]), "two entries of 'categories' have the id 3"),
        (make_file(categories=[{"id": "3", "name": "car"}]), "needs a whole number as id, and a name"),
        (make_file(categories=[{"id": 3}]), "needs a whole number as id, and a name"),
        (make_file(images=make_file()["images"] * 2), "two entries of 'images' have the id 7"),
        (make_file(images=[{"file_name": "a.jpg"}]), "an entry of 'images' has the id None"),
        (make_file(images=[{"id": 7}]), "the image 7 has no file_name"),
        (
            make_file({**CAR, "segmentation": {"size": [8, 6], "counts": [48]}}),
            r"its mask is 8×6 and its image 6×8 \(height×width\)",
        ),
        (
            make_file({**CAR, "segmentation": {"size": [6, 8], "counts": [47]}}),
            "its mask of 6×8 cannot be read, for its runs have 47 pixels",
        ),
        (make_file({**CAR, "segmentation": {"size": [6, 8]}}), "its mask has no counts"),
        (make_file({**CAR, "segmentation": {"counts": [48]}}), "its mask has the size None"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read(write_export(tmp_path, content))


def make_square(left: float, top: float, right: float, bottom: float, box: float = 0) -> dict[str, Any]:
    """Return an object whose box is larger than its outline by `box` pixels."""
    outline = [left, top, right, top, right, bottom, left, bottom]
    return {"segmentation": [outline], "bbox": [left, top, right - left + box, bottom - top + box]}


@pytest.mark.parametrize(
    ("squares", "are_indices"),
    [
        ([make_square(1, 1, 4, 3, box=1)], True),
        ([make_square(1, 1, 4, 3)], False),
        ([make_square(1.5, 1, 4, 3, box=1)], False),
        ([make_square(1, 1, 7, 3)] * 3, True),
        ([make_square(1, 1, 4, 5)] * 3, True),
        ([make_square(1, 1, 7, 3)] * 2, False),
        ([*[make_square(1, 1, 7, 3)] * 3, make_square(1, 1, 8, 3)], False),
        ([*[make_square(1, 1, 7, 3)] * 5, *[make_square(1, 1, 6, 3)] * 2], False),
        ([*[make_square(1, 1, 7, 3)] * 6, *[make_square(1, 1, 6, 3)] * 2], True),
        ([{"segmentation": CROWD_RLE, "bbox": [6, 0, 2, 6]}, {"segmentation": []}, {}], False),
    ],
    ids=[
        "larger boxes",
        "edges",
        "positions",
        "last column",
        "last row",
        "too few",
        "one at the edge",
        "by chance",
        "cut off",
        "no outlines",
    ],
)
def test_outlines_of_pixel_indices_are_noticed(squares: list[dict[str, Any]], are_indices: bool) -> None:
    assert are_outlines_indices((square, (6, 8)) for square in squares) == are_indices


_JUNK = (None, -1, float("nan"), float("inf"), 2**70, "", "\ud800", True, [], [[[1, 2]]], {"a": 1})


def list_places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in ((*path, key), *list_places(value, (*path, key)))]


@pytest.mark.parametrize("junk", _JUNK, ids=repr)
def test_junk_anywhere_is_refused_or_left_out(tmp_path: Path, junk: Any) -> None:
    base = make_file({**CAR, "keypoints": [1, 1, 1], "attributes": {"a": 1}}, CROWD)
    root = write_export(tmp_path, base)
    for place in list_places(base):
        content = json.loads(json.dumps(base))
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = junk
        (root / "annotations/instances_default.json").write_text(json.dumps(content))
        with suppress(UserError):
            export = read_coco(root, ReadSettings(boxes="fill"), Notes())
            draw_labels(export._replace(images=[image._replace(size=(6, 8)) for image in export.images]))


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no JSON file"):
        read(tmp_path)


def test_splits_and_folders_of_coco_itself(tmp_path: Path) -> None:
    write_export(tmp_path, make_file(CAR), "annotations/instances_train2017.json", "train2017/a.jpg")
    write_export(tmp_path, make_file(PERSON), "annotations/instances_val2017.json", "val2017/a.jpg")
    (tmp_path / "annotations/captions_val2017.json").write_text("{}")
    export, notes = read(tmp_path)
    assert [(image.path.relative_to(tmp_path).as_posix(), image.split) for image in export.images] == [
        ("train2017/a.jpg", "train"),
        ("val2017/a.jpg", "val"),
    ]
    assert [[region.class_name for region in image.content] for image in export.images] == [["car"], ["person"]]  # type: ignore[union-attr]
    captions = tmp_path / "annotations/captions_val2017.json"
    assert notes == [f"JSON files beside instances_*.json are not read: 1, the first is {captions}"]


def test_splits_of_roboflow_and_categories_that_differ(tmp_path: Path) -> None:
    write_export(tmp_path, make_file(CAR), "train/_annotations.coco.json", "train/a.jpg")
    swapped = [{"id": 3, "name": "person"}, {"id": 11, "name": "bus"}]
    write_export(tmp_path, make_file(CAR, categories=swapped), "valid/_annotations.coco.json", "valid/a.jpg")
    export, notes = read(tmp_path)
    assert [entry.name for entry in export.classes] == ["car", "person", "bus"]
    assert [(image.split, image.content[0].class_name) for image in export.images] == [
        ("train", "car"),
        ("val", "person"),
    ]  # type: ignore[index]
    assert notes == ["categories are in some of the files only: 2, the first is car"]


def test_images_elsewhere_and_paths_that_lead_out(tmp_path: Path) -> None:
    secret = write_image(tmp_path / "secret.jpg")
    content = make_file(CAR, PERSON, name=f"/home/me/{secret.name}")
    content["images"].append({"id": 8, "file_name": "../secret.jpg", "height": 6, "width": 8})
    root = write_export(tmp_path / "export", content, image="images/other.jpg")
    export, notes = read(root)
    assert export.images == []
    assert "images are missing and left out: 2, the first is /home/me/secret.jpg" in notes
    export, _ = read(root, image_folder=tmp_path)
    assert [image.path for image in export.images] == [secret]


def test_one_file_is_read_with_the_images_around_it(tmp_path: Path) -> None:
    write_export(tmp_path, make_file(CAR))
    export, _ = read(tmp_path / "annotations/instances_default.json")
    assert [image.path for image in export.images] == [tmp_path / "images/a.jpg"]
    assert UNLABELED in draw_labels(export)["a"]
