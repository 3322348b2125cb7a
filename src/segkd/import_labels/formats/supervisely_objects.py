"""Read the objects of Supervisely: which have an area, and which pixels it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from segkd.errors import UserError
from segkd.import_labels.annotations import Bitmap, Mask, Notes, Points, Polygon, ReadSettings
from segkd.import_labels.embedded import decode_base64, decompress, read_embedded_mask

SHAPES_WITHOUT_AREA = ("point", "line", "graph", "keypoints", "cuboid", "cuboid_2d", "cuboid_3d", "mask_3d")


def read_object(entry: Mapping[str, Any], where: str, settings: ReadSettings, notes: Notes) -> Polygon | Bitmap | None:
    """Return the area of an object; None for one that has none, which is noted.

    Args:
        entry: An entry of `objects`.
        where: What and where it is, for messages.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: Its points are none, or its bitmap is damaged.
    """
    kind = entry.get("geometryType")
    if entry.get("tags"):
        notes.add("attributes are left out", where)
    if kind == "bitmap":
        return _read_bitmap(entry, where)
    if kind in ("polygon", "rectangle"):
        exterior, *interior = _read_rings(entry, where)
        if kind == "polygon":
            return Polygon((exterior, *interior), outline="centers")
        if settings.boxes == "skip":
            notes.add("boxes without an outline are left out; boxes=fill fills them", where)
            return None
        notes.add("boxes without an outline are filled", where)
        return Polygon((_draw_box(exterior, where),), outline="centers")
    if kind == "alpha_mask":
        notes.add("alpha masks are left out, for their pixels belong to a class in part", where)
    else:
        reason = "have no area" if kind in SHAPES_WITHOUT_AREA else "are unknown"
        notes.add(f"objects of the type {kind} {reason} and are left out", where)
    return None


def _read_rings(entry: Mapping[str, Any], where: str) -> list[Points]:
    """Return the exterior and the holes of an object, in pixels that belong to it."""
    points = entry.get("points")
    exterior = points.get("exterior") if isinstance(points, dict) else None
    interior = (points.get("interior") if isinstance(points, dict) else None) or []
    rings = [_read_ring(ring) for ring in [exterior, *(interior if isinstance(interior, list) else [None])]]
    if any(ring is None for ring in rings):
        raise UserError(
            f"{where}: its points are {str(points)[:60]}; it needs exterior: [[x, y], …] and interior: [[[x, y], …], …]"
        )
    return [ring for ring in rings if ring is not None]


def _read_ring(values: Any) -> Points | None:
    try:
        ring = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    # Supervisely rounds positions between pixels down.
    return np.floor(ring) if ring.ndim == 2 and ring.shape[1] == 2 else None


def _draw_box(corners: Points, where: str) -> Points:
    if len(corners) != 2:
        raise UserError(f"{where}: it has {len(corners)} corners; a rectangle needs [[left, top], [right, bottom]]")
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _read_bitmap(entry: Mapping[str, Any], where: str) -> Bitmap:
    bitmap = entry.get("bitmap")
    origin, data = (bitmap.get(key) for key in ("origin", "data")) if isinstance(bitmap, dict) else (None, None)
    if not isinstance(origin, list) or len(origin) != 2 or not all(type(value) is int for value in origin):
        raise UserError(f"{where}: its bitmap has the origin {origin!r}; it needs [x, y]")
    content = decode_base64(data, f"the bitmap of {where}")
    return Bitmap(partial(_decode, content, f"the bitmap of {where}"), origin[1], origin[0])


def _decode(content: bytes, what: str) -> Mask:
    return read_embedded_mask(decompress(content, what), what)
