"""Read YOLO's labels: a text file per image with polygons or boxes, in parts of the image's width and height."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from segkd.data.discovery import find_images
from segkd.data.image_io import read_bytes
from segkd.errors import UserError
from segkd.import_labels.annotations import (
    AnnotatedImage,
    Export,
    LabelClass,
    Notes,
    Polygon,
    ReadSettings,
    Region,
)
from segkd.import_labels.formats.yolo_table import YoloTable, read_yolo_table
from segkd.import_labels.splits import find_split_in_name

_BOX_LENGTH, _MIN_POLYGON_LENGTH = 4, 6  # numbers after the class: center and size; three points
_MIN_STARTS = 10  # outlines at the left edge
_AT_EDGE = 2e-6  # parts of a side; labels have six decimals
_OUTSIDE = 0.5  # sides by which an outline may leave the image; beyond, the numbers are pixels


def read_yolo(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read the images that data.yaml names, and the label beside each.

    Args:
        path: The yaml file, or the folder that holds it.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: It is no such export, or a label is damaged.
    """
    if settings.image_folder is not None:
        raise UserError("image_folder is not used for YOLO, where data.yaml and the labels say where the images are")
    table = read_yolo_table(path, notes)
    images: dict[Path, AnnotatedImage] = {}
    unlabeled: list[Path] = []
    for split, source in table.sources:
        for image, root in _list_images(source, notes):
            label = find_label_file(image)
            if not label.is_file():
                unlabeled.append(image)
            regions = tuple(_read_label(label, table, settings, notes)) if label.is_file() else ()
            own_split = split or _find_split(image, root)
            name = image.relative_to(root).with_suffix("").as_posix()
            images.setdefault(image, AnnotatedImage(image, name, regions, split=own_split))
    if images and len(unlabeled) == len(images):
        raise UserError(
            f"none of {len(images)} images has a label; that of {unlabeled[0]} would be {find_label_file(unlabeled[0])}"
        )
    if unlabeled:
        notes.add("images have no text file, so nothing is in them", str(unlabeled[0]), len(unlabeled))
    _note_labels_without_image([*images], notes)
    if settings.outlines is None:
        _note_pixel_indices([*images.values()], notes)
    return Export([LabelClass(name) for name in table.names.values()], [*images.values()])


def find_label_file(image: Path) -> Path:
    """Return the path of an image's label: in `labels` instead of the last `images` of the path, or beside the image."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _list_images(source: Path, notes: Notes) -> Iterator[tuple[Path, Path]]:
    """Yield the images of a folder or of a text file that lists them, each with the folder to which its name is relative."""
    if source.is_dir():
        for image in find_images(source).paths:
            yield image, source
        return
    base = source.parent
    for line in read_bytes(source).decode("utf-8-sig", errors="replace").splitlines():
        if not (name := line.strip()):
            continue
        plain = Path(*(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in (".", "..", "/")))
        tails = [Path(*plain.parts[i:]) for i in range(len(plain.parts))]
        found = next((base / tail for tail in tails if (base / tail).is_file()), None)
        if found is None:
            notes.add("images are missing and left out", f"{name} in {source}")
        else:
            yield found, found.parent


def _read_label(path: Path, table: YoloTable, settings: ReadSettings, notes: Notes) -> Iterator[Region]:
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        key, *values = _parse_line(line, where)
        if key not in table.names:
            raise UserError(f"{where} is of class {key:g}; {table.path} has {_list_names(table)}")
        polygon = _read_polygon(values, settings, where)
        if not (np.abs(polygon.rings[0] - 0.5) <= 0.5 + _OUTSIDE).all():
            raise UserError(f"{where} has coordinates far outside 0–1; they are parts of width and height, not pixels")
        if len(values) == _BOX_LENGTH:
            fate = "filled" if settings.boxes == "fill" else "left out; boxes=fill fills them"
            notes.add(f"boxes without an outline are {fate}", where)
        if len(values) > _BOX_LENGTH or settings.boxes == "fill":
            yield Region(table.names[int(key)], (polygon,))


def _read_polygon(values: Sequence[float], settings: ReadSettings, where: str) -> Polygon:
    """Return the polygon of x, y, x, y, …, or of the center and the size of a box."""
    if len(values) == _BOX_LENGTH:
        x, y, width, height = values
        corners = [(x + sx * width / 2, y + sy * height / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        return Polygon((np.array(corners),), is_relative=True)
    if len(values) < _MIN_POLYGON_LENGTH or len(values) % 2:
        raise UserError(
            f"{where} has {len(values) + 1} numbers; a box has {_BOX_LENGTH + 1}, and an outline a class and at least three points"
        )
    return Polygon((np.array(values).reshape(-1, 2),), is_relative=True, outline=settings.outlines or "edges")


def _parse_line(line: str, where: str) -> Sequence[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        raise UserError(f"{where} is '{line.strip()[:60]}'; expected a class number and coordinates") from None


def _list_names(table: YoloTable) -> str:
    first = ", ".join(f"{i} {name}" for i, name in [*table.names.items()][:10])
    return f"{first}, …" if len(table.names) > 10 else first or "no class"


def _find_split(image: Path, root: Path) -> str | None:
    names = reversed(image.relative_to(root).parts[:-1])
    return next((split for name in names if (split := find_split_in_name(name))), None)


def _note_pixel_indices(images: Sequence[AnnotatedImage], notes: Notes) -> None:
    """Note outlines of which many begin at the left edge of their image, and none ends at the right or lower one.

    The index of the last column is one less than the width, so outlines of pixel indices do not reach it.
    """
    regions = [(image, region) for image in images if isinstance(image.content, tuple) for region in image.content]
    rings = [(image, part.rings[0]) for image, region in regions for part in region.parts if isinstance(part, Polygon)]
    starts = [image for image, ring in rings if (ring[:, 0] <= _AT_EDGE).any()]
    if len(starts) >= _MIN_STARTS and not any((ring >= 1 - _AT_EDGE).any() for _, ring in rings):
        kind = (
            "outlines begin at the left edge of their image, and none ends at the right or lower one, as if points were "
            "pixel indices, such as those of cv2.findContours; outlines=centers draws them so, outlines=edges as they are"
        )
        notes.add(kind, str(starts[0].path), len(starts))


def _note_labels_without_image(images: Sequence[Path], notes: Notes) -> None:
    expected = {find_label_file(image) for image in images}
    folders = {label.parent for label in expected}
    # classes.txt and the like lie beside images and not in a folder of labels.
    found = [file for folder in sorted(folders) if folder.is_dir() for file in sorted(folder.glob("*.txt"))]
    if extra := [file for file in found if file not in expected and "labels" in file.parts]:
        notes.add("labels without an image are left out", str(extra[0]), len(extra))
