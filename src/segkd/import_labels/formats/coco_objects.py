"""Read the annotated objects of a COCO file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segkd.errors import UserError
from segkd.import_labels.annotations import Bitmap, Notes, Outline, Polygon, ReadSettings, Region
from segkd.import_labels.rle import decode_rle


def read_object(
    annotation: Mapping[str, Any],
    class_name: str,
    size: tuple[int, int] | None,
    settings: ReadSettings,
    notes: Notes,
    where: str,
) -> Region | None:
    """Return the region of an object; None, with a note, if it has none or is left out.

    Args:
        annotation: The object.
        class_name: Its class.
        size: Height and width of the image, if the file says so.
        settings: What becomes of boxes and crowds.
        notes: Gets what is left out.
        where: The annotation, for the notes.

    Raises:
        UserError: A mask is damaged or of another size than the image.
    """
    _note_unused(annotation, notes, where)
    parts = _read_parts(annotation, size, settings, notes, where)
    if not parts:
        return None
    if annotation.get("iscrowd"):
        fate = {"ignore": "ignored", "fill": "filled as objects", "skip": "left out"}[settings.crowd]
        notes.add(f"crowd regions are {fate}", where)
        if settings.crowd == "skip":
            return None
        return Region(None if settings.crowd == "ignore" else class_name, parts)
    return Region(class_name, parts)


def _note_unused(annotation: Mapping[str, Any], notes: Notes, where: str) -> None:
    keypoints = annotation.get("keypoints")
    if isinstance(keypoints, list) and any(keypoints):
        notes.add("keypoints are left out", where)
    attributes = annotation.get("attributes")
    if isinstance(attributes, dict) and any(attributes.values()):
        notes.add("attributes are left out", f"{next(key for key, value in attributes.items() if value)} of {where}")


def _read_parts(
    annotation: Mapping[str, Any], size: tuple[int, int] | None, settings: ReadSettings, notes: Notes, where: str
) -> tuple[Polygon | Bitmap, ...]:
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return (_read_mask(outline, size, where),)
    if isinstance(outline, list) and outline:
        flat = [outline] if isinstance(outline[0], int | float) else outline
        polygons = tuple(polygon for part in flat if (polygon := _read_polygon(part, settings.outlines or "edges")))
        if len(polygons) < len(flat):
            notes.add("outlines that are no lists of x and y are left out", where, len(flat) - len(polygons))
        return polygons
    if (box := _read_box(annotation.get("bbox"))) is None:
        notes.add("annotations without an outline are left out", where)
        return ()
    if settings.boxes == "skip":
        notes.add("boxes without an outline are left out; boxes=fill fills them", where)
        return ()
    notes.add("boxes without an outline are filled", where)
    return (box,)


def _read_polygon(values: Any, outline: Outline) -> Polygon | None:
    """Return the polygon of x, y, x, y, …; None if the values are none."""
    try:
        points = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    is_flat = points.ndim == 1 and points.size > 0 and points.size % 2 == 0
    return Polygon((points.reshape(-1, 2),), outline=outline) if is_flat else None


def _read_box(values: Any) -> Polygon | None:
    """Return the rectangle of left, top, width and height; None if the values are none."""
    if not isinstance(values, list) or len(values) != 4 or not all(type(value) in (int, float) for value in values):
        return None
    left, top, width, height = values
    if width <= 0 or height <= 0:
        return None
    right, bottom = left + width, top + height
    return Polygon((np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64),))


def _read_mask(rle: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> Bitmap:
    own, counts = rle.get("size"), rle.get("counts")
    if not isinstance(own, list) or len(own) != 2 or not all(type(side) is int and side > 0 for side in own):
        raise UserError(f"{where}: its mask has the size {own!r}; give [height, width]")
    if size is not None and tuple(own) != size:
        raise UserError(
            f"{where}: its mask is {own[0]}×{own[1]} and its image {size[0]}×{size[1]} (height×width); export it again"
        )
    if not isinstance(counts, str | list):
        raise UserError(f"{where}: its mask has no counts; export it again")
    height, width = own

    def read() -> Any:
        try:
            return decode_rle(counts, (height, width))
        except ValueError as error:
            raise UserError(
                f"{where}: its mask of {height}×{width} cannot be read, for {error}; export it again"
            ) from None

    return Bitmap(read)
