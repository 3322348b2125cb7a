"""Read labelme's shapes: which have an area, and which pixels it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from segkd.errors import UserError
from segkd.import_labels.annotations import Bitmap, Notes, Points, Polygon, ReadSettings
from segkd.import_labels.embedded import decode_base64, read_embedded_mask

_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_NUM_POINTS = {"rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}


def read_shape(shape: Mapping[str, Any], where: str, settings: ReadSettings, notes: Notes) -> Polygon | Bitmap | None:
    """Return the area of a shape; None for one that has none, which is noted.

    Args:
        shape: An entry of `shapes`.
        where: What and where it is, for messages.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: Its points are none, or its mask is damaged.
    """
    kind = str(shape.get("shape_type") or "polygon")
    flags = shape.get("flags")
    if isinstance(flags, dict) and any(flags.values()):
        notes.add("attributes are left out", where)
    if kind in _WITHOUT_AREA:
        notes.add(f"shapes of the type {kind} have no area and are left out", where)
        return None
    if kind != "polygon" and kind not in _NUM_POINTS:
        notes.add(f"shapes of the type {kind} are unknown and are left out", where)
        return None
    points = _read_points(shape, kind, where)
    if kind == "mask":
        left, top = (round(value) for value in points.min(0).tolist())
        content = decode_base64(shape.get("mask"), f"the mask of {where}")
        return Bitmap(partial(read_embedded_mask, content, f"the mask of {where}"), top, left)
    if kind == "circle":
        return Polygon((_draw_circle(*points),))
    if kind in ("rectangle", "oriented_rectangle"):
        if settings.boxes == "skip":
            notes.add("boxes without an outline are left out; boxes=fill fills them", where)
            return None
        notes.add("boxes without an outline are filled", where)
        return Polygon((_draw_box(*points) if kind == "rectangle" else points,))
    return Polygon((points,))


def _read_points(shape: Mapping[str, Any], kind: str, where: str) -> Points:
    try:
        points = np.array(shape.get("points"), np.float64)
    except (ValueError, TypeError, OverflowError):
        points = np.zeros(0)
    count = _NUM_POINTS.get(kind, len(points) if points.ndim else 0)
    if points.ndim != 2 or points.shape != (count, 2) or (kind != "polygon" and not np.isfinite(points).all()):
        expected = "[[x, y], …]" if kind == "polygon" else f"{count} [x, y]"
        raise UserError(f"{where}: its points are {str(shape.get('points'))[:40]}; a {kind} needs {expected}")
    return points


def _draw_box(first: Points, second: Points) -> Points:
    (left, top), (right, bottom) = np.minimum(first, second), np.maximum(first, second)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _draw_circle(center: Points, rim: Points) -> Points:
    radius = float(np.hypot(*(rim - center)))
    angles = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    return np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], 1)
