"""Projects of Supervisely: objects, datasets, what is left out, and what is refused."""

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, UNLABELED, Export, Notes, ReadSettings
from segkd.import_labels.formats.supervisely import read_supervisely
from tests.helpers.exports import draw_labels, paint, write_image
from tests.helpers.image_files import PALETTE, make_png

CLASSES = [
    {"title": "car", "shape": "any", "color": "#FF0000", "geometry_config": {}, "id": 1, "hotkey": ""},
    {"title": "person", "shape": "bitmap", "color": "#00FF80", "geometry_config": {}, "id": 2, "hotkey": ""},
]
IDS = {"c": 0, "p": 1}


def encode(mask: np.ndarray) -> str:
    """Encode a mask as Supervisely does: compressed, a PNG with the palette black, white, and black transparent."""
    chunks = [(b"PLTE", bytes([0, 0, 0, 255, 255, 255])), (b"tRNS", b"\0")]
    return encode_bytes(make_png(mask.astype(np.uint8), color_type=PALETTE, chunks=chunks))


def encode_bytes(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


def make_bitmap(label: str, mask: Any, origin: Any = (2, 3), data: Any = None) -> dict[str, Any]:
    return {
        "classTitle": label,
        "geometryType": "bitmap",
        "tags": [],
        "bitmap": {"data": data or encode(np.array(mask)), "origin": list(origin)},
    }


def make_object(label: str, kind: str, exterior: Any, interior: Any = ()) -> dict[str, Any]:
    return {
        "id": 7,
        "classId": 1,
        "classTitle": label,
        "description": "",
        "geometryType": kind,
        "tags": [],
        "points": {"exterior": exterior, "interior": list(interior)},
    }


def write_project(root: Path, datasets: dict[str, dict[str, Any]], classes: Any = CLASSES, **meta: Any) -> Path:
    """Write dataset → image → objects."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": [], **meta}), encoding="utf-8")
    for dataset, images in datasets.items():
        for name, objects in images.items():
            write_image(root / dataset / "img" / name)
            write_annotation(root / dataset / "ann" / f"{name}.json", objects)
    return root


def write_annotation(path: Path, objects: Any, tags: tuple[str, ...] = (), size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "description": "",
        "tags": [{"name": tag, "value": None} for tag in tags],
        "size": {"height": size[0], "width": size[1]},
        "objects": objects,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def read(root: Path, **settings: Any) -> tuple[Export, list[str]]:
    notes = Notes()
    return read_supervisely(root, ReadSettings(**settings), notes), notes.list_lines()


def draw(root: Path, **settings: Any) -> np.ndarray:
    (label,) = draw_labels(read(root, **settings)[0]).values()
    return label


SQUARE = [[1, 1], [5, 1], [5, 5], [1, 5]]
OBJECTS = {
    "bitmap": (make_bitmap("car", [[0, 1, 1], [1, 0, 1]]), "........ ........ ........ ...cc... ..c.c... ........"),
    # The points are pixels of the object: columns 1 to 5, rows 1 to 5.
    "polygon": (make_object("car", "polygon", SQUARE), "........ .ccccc.. .ccccc.. .ccccc.. .ccccc.. .ccccc.."),
    "position between pixels": (
        make_object("car", "polygon", [[1.9, 1.2], [5.9, 1.9], [5.1, 5.99], [1, 5]]),
        "........ .ccccc.. .ccccc.. .ccccc.. .ccccc.. .ccccc..",
    ),
    # The ring of a hole belongs to the object, too.
    "hole": (
        make_object("car", "polygon", SQUARE, [[[2, 2], [4, 2], [4, 4], [2, 4]]]),
        "........ .ccccc.. .ccccc.. .cc.cc.. .ccccc.. .ccccc..",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_cover_the_pixels_counted_by_hand(name: str, tmp_path: Path) -> None:
    entry, picture = OBJECTS[name]
    label = draw(write_project(tmp_path, {"ds": {"a.jpg": [entry]}}))
    np.testing.assert_array_equal(label, paint(picture, IDS))


@pytest.mark.parametrize("form", ["palette", "gray", "bits", "rgba"])
def test_a_mask_may_be_an_image_of_several_forms(form: str, tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    image = {
        "palette": lambda: Image.fromarray(mask).convert("P"),
        "gray": lambda: Image.fromarray(mask * 255),
        "bits": lambda: Image.fromarray(mask.astype(np.bool_)),
        "rgba": lambda: Image.fromarray(np.dstack([np.full((2, 3, 3), 255, np.uint8), mask * 255])),
    }[form]()
    if form == "palette":
        image.putpalette([0, 0, 0, 255, 255, 255])  # opaque
    file = io.BytesIO()
    image.save(file, "PNG")
    data = encode_bytes(file.getvalue())
    label = draw(write_project(tmp_path, {"ds": {"a.jpg": [make_bitmap("car", None, (2, 3), data)]}}))
    np.testing.assert_array_equal(label, paint("........ ........ ........ ...cc... ..c.c... ........", IDS))


def test_later_objects_lie_on_earlier_ones(tmp_path: Path) -> None:
    small, large = make_bitmap("person", [[1]], (1, 0)), make_bitmap("car", [[1, 1, 1]], (0, 0))
    root = write_project(tmp_path, {"ds": {"over.jpg": [large, small], "under.jpg": [small, large]}})
    labels = draw_labels(read(root)[0])
    assert labels["over"][0, :4].tolist() == [0, 1, 0, UNLABELED]
    assert labels["under"][0, :4].tolist() == [0, 0, 0, UNLABELED]


def test_rectangles_are_boxes(tmp_path: Path) -> None:
    root = write_project(tmp_path, {"ds": {"a.jpg": [make_object("car", "rectangle", [[1, 1], [3, 2]])]}})
    export, notes = read(root)
    assert export.images[0].content == ()
    place = f"object 1 ('car') of {root / 'ds' / 'ann' / 'a.jpg.json'}"
    assert notes == [f"boxes without an outline are left out; boxes=fill fills them: 1, the first is {place}"]
    picture = "........ .ccc.... .ccc.... ........ ........ ........"
    np.testing.assert_array_equal(draw(root, boxes="fill"), paint(picture, IDS))


def test_what_has_no_area_is_named(tmp_path: Path) -> None:
    classes = [*CLASSES, {"title": "lane", "shape": "line", "color": "#000000"}]
    objects = [
        make_object("lane", kind, [[0, 0], [3, 3]]) for kind in ("line", "point", "graph", "torus", "alpha_mask")
    ]
    objects[0]["tags"] = [{"name": "occluded"}]
    root = write_project(tmp_path, {"ds": {"a.jpg": objects}}, classes)
    export, notes = read(root)
    assert [*export.classes] == [("car", (255, 0, 0)), ("person", (0, 255, 128))]
    file = root / "ds" / "ann" / "a.jpg.json"
    assert notes == [
        f"classes of points, lines and other shapes without an area are left out: 1, the first is 'lane' in {root / 'meta.json'}",
        f"attributes are left out: 1, the first is object 1 ('lane') of {file}",
        f"objects of the type line have no area and are left out: 1, the first is object 1 ('lane') of {file}",
        f"objects of the type point have no area and are left out: 1, the first is object 2 ('lane') of {file}",
        f"objects of the type graph have no area and are left out: 1, the first is object 3 ('lane') of {file}",
        f"objects of the type torus are unknown and are left out: 1, the first is object 4 ('lane') of {file}",
        f"alpha masks are left out, for their pixels belong to a class in part: 1, the first is object 5 ('lane') of {file}",
    ]


def test_datasets_are_splits_or_part_of_the_name(tmp_path: Path) -> None:
    root = write_project(tmp_path / "split", {"train": {"a.jpg": []}, "Validation": {"a.jpg": [], "b.c.png": []}})
    found = [(image.name, image.split) for image in read(root)[0].images]
    assert sorted(found) == [("a", "Validation"), ("a", "train"), ("b.c", "Validation")]
    root = write_project(
        tmp_path / "groups", {"Straße 1": {"a.jpg": []}, "ds/datasets/inner": {"a.jpg": []}, "ds": {"a.jpg": []}}
    )
    images = read(root)[0].images
    assert [(image.name, image.split) for image in images] == [
        ("Straße 1/a", None),
        ("ds/a", None),
        ("ds/inner/a", None),
    ]
    assert [image.path.relative_to(root).parts[0] for image in images] == ["Straße 1", "ds", "ds"]


def test_tags_of_images_may_be_splits(tmp_path: Path) -> None:
    root = write_project(tmp_path, {"ds": {"a.jpg": [], "b.jpg": []}})
    write_annotation(root / "ds" / "ann" / "a.jpg.json", [], ("night", "train"))
    write_annotation(root / "ds" / "ann" / "b.jpg.json", [], ("val",))
    export, notes = read(root)
    assert [image.split for image in export.images] == ["train", "val"]
    assert notes == [f"tags of images are left out: 1, the first is 'night' of {root / 'ds' / 'ann' / 'a.jpg.json'}"]


@pytest.mark.parametrize("others", [{"tags": 1.5}, {"tags": [None]}, {"size": [6, 8]}, {"size": {"height": "6"}}])
def test_what_is_not_needed_may_be_damaged(others: dict[str, Any], tmp_path: Path) -> None:
    root = write_project(tmp_path, {"ds": {"a.jpg": []}})
    file = root / "ds" / "ann" / "a.jpg.json"
    file.write_text(json.dumps({"objects": [], **others}), encoding="utf-8")
    (image,) = read(root)[0].images
    assert (image.size, image.split) == (None, None)


def test_images_and_annotations_without_the_other_are_named(tmp_path: Path) -> None:
    root = write_project(tmp_path / "project", {"ds": {"a.jpg": [], "b.jpg": []}})
    (root / "ds" / "img" / "b.jpg").rename(root / "ds" / "img" / "c.jpg")
    assert read(root)[1] == [
        "images are missing and left out: 1, the first is ds/b.jpg",
        f"images are left out, for the annotations do not name them: 1, the first is {root / 'ds' / 'img' / 'c.jpg'}",
    ]
    (root / "ds" / "img").rename(tmp_path / "photos")
    assert len(read(root, image_folder=tmp_path / "photos")[0].images) == 1


def test_the_project_may_lie_in_one_more_folder(tmp_path: Path) -> None:
    write_project(tmp_path / "project", {"ds": {"a.jpg": []}})
    assert len(read(tmp_path)[0].images) == 1


def test_void_classes_are_ignored_pixels(tmp_path: Path) -> None:
    classes = [*CLASSES, {"title": "Ignore", "shape": "bitmap", "color": "#FFFFFF"}]
    root = write_project(tmp_path, {"ds": {"a.jpg": [make_bitmap("Ignore", [[1]], (0, 0))]}}, classes)
    assert draw(root)[0, 0] == IGNORED


FAULTS = {
    "no base64": (make_bitmap("car", None, data="é"), r"the bitmap of object 1 \('car'\) of .*a\.jpg\.json is no base64"),
    "no zlib": (make_bitmap("car", None, data="AAAA"), r"the bitmap of object 1 .* cannot be decompressed"),
    "half of it": (
        make_bitmap("car", None, data=base64.b64encode(base64.b64decode(encode(np.eye(3)))[:-9]).decode()),
        "cannot be decompressed, for its end is missing",
    ),
    "no image": (
        make_bitmap("car", None, data=encode_bytes(b"text")),
        "the bitmap of object 1 .* is not a complete image",
    ),
    "no origin": ({**make_bitmap("car", [[1]]), "bitmap": {"data": encode(np.eye(3))}}, r"has the origin None; it needs \[x, y\]"),
    "no points": (make_object("car", "polygon", None), r"its points are .*; it needs exterior: "),
    "ragged points": (make_object("car", "polygon", [[1, 2], [3]]), "its points are "),
    "a hole of no points": (make_object("car", "polygon", SQUARE, [[1, 2]]), "its points are "),
    "an unknown class": (
        make_object("tram", "polygon", SQUARE),
        r"a region of a has the label 'tram', which meta\.json does not name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_damaged_objects_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    entry, message = FAULTS[name]
    with pytest.raises(UserError, match=message):
        draw(write_project(tmp_path, {"ds": {"a.jpg": [entry]}}))


def test_a_rectangle_needs_two_corners(tmp_path: Path) -> None:
    root = write_project(tmp_path, {"ds": {"a.jpg": [make_object("car", "rectangle", SQUARE)]}})
    with pytest.raises(UserError, match="it has 4 corners; a rectangle needs"):
        read(root, boxes="fill")


def test_a_bitmap_that_expands_too_much_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("segkd.import_labels.embedded._MAX_BYTES", 1 << 16)
    data = encode_bytes(bytes(1 << 20))
    with pytest.raises(UserError, match="cannot be decompressed, for it expands to more than 65536 bytes"):
        draw(write_project(tmp_path, {"ds": {"a.jpg": [make_bitmap("car", None, data=data)]}}))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no project of Supervisely; give the folder that holds meta\.json"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"has meta\.json and no dataset, a folder that holds ann"):
        read(write_project(tmp_path / "empty", {}))
    with pytest.raises(UserError, match="is of a project of videos; only projects of images are read"):
        read(write_project(tmp_path / "video", {}, projectType="videos"))
    with pytest.raises(UserError, match="has no list of classes with a title"):
        read(write_project(tmp_path / "meta", {}, classes=[{"name": "car"}]))
    root = write_project(tmp_path / "annotation", {"ds": {"a.jpg": None}})
    with pytest.raises(UserError, match=r"a\.jpg\.json has no list of objects"):
        read(root)


def test_bitmaps_come_back_exactly_and_outlines_of_their_pixels_too(tmp_path: Path) -> None:
    coarse = np.ones((5, 7), np.uint8)
    coarse[[1, 2, 3, 0], [1, 3, 5, 6]] = 0  # three holes and a corner
    mask = np.kron(coarse, np.ones((4, 4), np.uint8))
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for i, (_, _, child, parent) in enumerate(hierarchy[0]):
        if parent >= 0:
            continue
        holes = []
        while child >= 0:
            holes.append(contours[child][:, 0].tolist())
            child = hierarchy[0][child][0]
        polygons.append(make_object("car", "polygon", contours[i][:, 0].tolist(), holes))
    assert [len(entry["points"]["interior"]) for entry in polygons] == [3]
    for name, objects in (("bitmap", [make_bitmap("car", mask, (0, 0))]), ("polygon", polygons)):
        root = write_project(tmp_path / name, {"ds": {"a.jpg": []}})
        write_image(root / "ds" / "img" / "a.jpg", mask.shape)
        write_annotation(root / "ds" / "ann" / "a.jpg.json", objects, size=mask.shape)
        np.testing.assert_array_equal(draw(root) == 0, mask == 1)
