"""Read the shapes of 'CVAT for images': which have an area, and which pixels it is."""

from __future__ import annotations

import math
from functools import partial
from xml.etree.ElementTree import Element

import numpy as np

from segkd.data.image_io import MAX_PIXELS
from segkd.errors import UserError
from segkd.import_labels.annotations import Bitmap, Mask, Notes, Points, Polygon, ReadSettings

_WITHOUT_AREA = ("tag", "points", "polyline", "skeleton", "cuboid")


def read_shape(shape: Element, where: str, settings: ReadSettings, notes: Notes) -> Polygon | Bitmap | None:
    """Return the area of a shape; None for one that has none, which is noted.

    Args:
        shape: A child of `<image>`.
        where: What and where it is, for messages.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: A coordinate is missing or no number, or a mask has not the size that it says.
    """
    if shape.find("attribute") is not None:
        notes.add("attributes are left out", where)
    if shape.tag == "polygon":
        return Polygon((_read_points(shape, where),))
    if shape.tag == "mask":
        return _read_mask(shape, where)
    if shape.tag == "ellipse":
        keys = ("cx", "cy", "rx", "ry")
        center_x, center_y, radius_x, radius_y = (read_number(shape, key, where) for key in keys)
        return Polygon((_rotate(_draw_ellipse(center_x, center_y, radius_x, radius_y), shape, where),))
    if shape.tag == "box":
        if settings.boxes == "skip":
            notes.add("boxes without an outline are left out; boxes=fill fills them", where)
            return None
        notes.add("boxes without an outline are filled", where)
        left, top, right, bottom = (read_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        return Polygon((_rotate(corners, shape, where),))
    kind = f"shapes <{shape.tag}> " + ("have no area" if shape.tag in _WITHOUT_AREA else "are unknown")
    notes.add(f"{kind} and are left out", where)
    return None


def read_number(shape: Element, key: str, where: str, default: str = "") -> float:
    """Return a number of a shape.

    Raises:
        UserError: It is missing or no number.
    """
    try:
        value = float(shape.get(key, default))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _make_error(shape, key, where, "a number")
    return value


def _read_points(shape: Element, where: str) -> Points:
    try:
        pairs = [[float(value) for value in pair.split(",")] for pair in shape.get("points", "").split(";")]
        points = np.array(pairs, np.float64)
    except ValueError:
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise _make_error(shape, "points", where, "x,y;x,y;…")
    return points


def _draw_ellipse(center_x: float, center_y: float, radius_x: float, radius_y: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    return np.stack([center_x + radius_x * np.cos(angles), center_y + radius_y * np.sin(angles)], 1)


def _rotate(points: Points, shape: Element, where: str) -> Points:
    """Turn points about their center by the clockwise angle of the shape, in degrees."""
    angle = np.deg2rad(read_number(shape, "rotation", where, "0"))
    center = (points.min(0) + points.max(0)) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Points = (points - center) @ np.array([[cos, sin], [-sin, cos]]) + center
    return turned if angle else points


def _read_mask(shape: Element, where: str) -> Bitmap:
    left, top, width, height = (int(read_number(shape, key, where)) for key in ("left", "top", "width", "height"))
    try:
        runs = np.array(shape.get("rle", "").split(","), np.int64)
    except (ValueError, OverflowError):
        raise _make_error(shape, "rle", where, "lengths of runs") from None
    area = width * height
    is_possible = width > 0 and height > 0 and area <= MAX_PIXELS and runs.min() >= 0 and runs.max() <= area
    if not is_possible or runs.sum() != area:
        raise UserError(
            f"{where} has runs of {runs.sum()} pixels in all, for a mask of {height}×{width}; export it again from CVAT"
        )
    return Bitmap(partial(_decode_runs, runs, (height, width)), top, left)


def _decode_runs(runs: np.ndarray, size: tuple[int, int]) -> Mask:
    """Return the mask of run lengths of rows, of zeros and ones in turn, zeros first."""
    mask: Mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)
    return mask


def _make_error(shape: Element, key: str, where: str, expected: str) -> UserError:
    given = shape.get(key)
    reason = f"has no {key}" if given is None else f"has the {key} '{given[:40]}'"
    return UserError(f"{where} {reason}; it needs {expected}, so export it again from CVAT")
