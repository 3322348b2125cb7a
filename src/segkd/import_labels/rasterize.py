"""Draw regions into a label.

Polygons are drawn as pycocotools draws those of COCO: the outline is followed in fifths of a pixel, and a pixel belongs to the
polygon if its center does; an outline along the edges of pixels gives exactly these pixels. The points of other outlines are
indices of pixels, as `cv2.findContours` returns them, and the pixels under the outline belong to the polygon too.
Overlapping rings of one polygon follow the even-odd rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from segkd.data.image_io import Array
from segkd.import_labels.annotations import IGNORED, Bitmap, Mask, Notes, Outline, Points, Polygon, Region
from segkd.utils.packages import require_package

_TOLERANCE = 1.0  # pixels by which outlines may leave an image without a note, as rounding makes them do
_MIN_POINTS = {"edges": 3, "centers": 1}
_FAR = 4  # image sides beyond which an outline is cut first, since drawing it takes time and memory by its length


class _Patch(NamedTuple):
    """The pixels of a region within a window of the image."""

    top: int
    left: int
    mask: Mask


class Drawing(NamedTuple):
    """How regions become a label."""

    ids: Mapping[str, int]
    """Class → id; regions of other classes are left out."""
    unlabeled: int
    """The id of pixels under no region."""
    is_ordered: bool = False
    """Whether later regions lie on earlier ones; otherwise smaller ones lie on larger ones."""


def draw_regions(regions: Sequence[Region], size: tuple[int, int], drawing: Drawing, notes: Notes, image: str) -> Array:
    """Return the label of an image, H W.

    Args:
        regions: What is annotated in it.
        size: Height and width.
        drawing: How it is drawn.
        notes: Gets what is changed or left out.
        image: Name of the image, for the notes.
    """
    drawn: list[tuple[int, _Patch]] = []
    for region in regions:
        if region.class_name is not None and region.class_name not in drawing.ids:
            continue
        patch = draw_region(region, size, notes, image)
        value = IGNORED if region.class_name is None else drawing.ids[region.class_name]
        if patch.mask.any():
            drawn.append((value, patch))
        else:
            notes.add("regions cover no pixel", f"{region.class_name or 'an ignored one'} in {image}")
    if not drawing.is_ordered:
        drawn.sort(key=lambda item: -int(item[1].mask.sum()))
    label = np.full(size, drawing.unlabeled, np.uint8)
    for value, patch in drawn:
        height, width = patch.mask.shape
        label[patch.top : patch.top + height, patch.left : patch.left + width][patch.mask] = value
    return label


def draw_region(region: Region, size: tuple[int, int], notes: Notes, image: str) -> _Patch:
    """Return the pixels of a region within an image of `size`; parts outside it are cut off and noted."""
    where = f"{region.class_name or 'an ignored one'} in {image}"
    patches = [
        _draw_polygon(part, size, notes, where)
        if isinstance(part, Polygon)
        else _cut_bitmap(part.read(), part, size, notes, where)
        for part in region.parts
    ]
    patches = [patch for patch in patches if patch.mask.size]
    if len(patches) == 1:
        return patches[0]
    top = min((patch.top for patch in patches), default=0)
    left = min((patch.left for patch in patches), default=0)
    bottom = max((patch.top + patch.mask.shape[0] for patch in patches), default=0)
    right = max((patch.left + patch.mask.shape[1] for patch in patches), default=0)
    union = np.zeros((bottom - top, right - left), np.bool_)
    for patch in patches:
        y, x = patch.top - top, patch.left - left
        union[y : y + patch.mask.shape[0], x : x + patch.mask.shape[1]] |= patch.mask
    return _Patch(top, left, union)


def _draw_polygon(polygon: Polygon, size: tuple[int, int], notes: Notes, where: str) -> _Patch:
    limits = np.array(size[::-1], np.float64)
    rings = [ring * limits if polygon.is_relative else ring for ring in polygon.rings]
    rings = [ring for ring in rings if _is_drawable(ring, polygon.outline, notes, where)]
    if any((ring < -_TOLERANCE).any() or (ring > limits + _TOLERANCE).any() for ring in rings):
        notes.add("outlines leave their image by more than a pixel and are cut off", where)
    rings = [cut for ring in rings if len(cut := _cut_far(ring, limits))]
    if not rings:
        return _Patch(0, 0, np.zeros((0, 0), np.bool_))
    points = np.concatenate(rings)
    start = np.clip(np.floor(points.min(0)), 0, limits).astype(int)
    end = np.clip(np.ceil(points.max(0)) + 1, 0, limits).astype(int)
    width, height = np.maximum(end - start, 0).tolist()
    mask = np.zeros((height, width), np.bool_)
    if mask.size:
        fill = _fill_edges if polygon.outline == "edges" else _fill_centers
        mask = fill([ring - start for ring in rings], (height, width))
    return _Patch(int(start[1]), int(start[0]), mask)


def _fill_edges(rings: Sequence[Points], size: tuple[int, int]) -> Mask:
    require_package("pycocotools", "import")
    from pycocotools import mask as coco

    mask = np.zeros(size, np.bool_)
    for ring in rings:
        if len(ring) > 2:  # of two points pycocotools would make a box
            mask ^= coco.decode(coco.frPyObjects([ring.ravel().tolist()], *size))[..., 0].astype(np.bool_)
    return mask


def _fill_centers(rings: Sequence[Points], size: tuple[int, int]) -> Mask:
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [np.rint(ring).astype(np.int32) for ring in rings], 1)
    return canvas.astype(np.bool_)


def _is_drawable(ring: Points, outline: Outline, notes: Notes, where: str) -> bool:
    if not np.isfinite(ring).all():
        notes.add("outlines with coordinates that are no numbers are left out", where)
        return False
    if len(ring) < _MIN_POINTS[outline]:
        notes.add("outlines of fewer than three points are left out", where)
        return False
    return True


def _cut_far(ring: Points, limits: Points) -> Points:
    """Cut an outline that leaves the image by far to its surroundings, edge by edge (Sutherland and Hodgman, 1974)."""
    if (ring >= -_FAR * limits).all() and (ring <= (1 + _FAR) * limits).all():
        return ring
    for axis in (0, 1):
        for sign, bound in ((1.0, -limits[axis]), (-1.0, 2 * limits[axis])):
            if len(ring) == 0:
                return ring
            depth = sign * (ring[:, axis] - bound)  # positive inside
            kept: list[Points] = []
            for i in range(len(ring)):
                before, after = depth[i - 1], depth[i]
                if (before > 0) != (after > 0):
                    kept.append(ring[i - 1] + (ring[i] - ring[i - 1]) * (before / (before - after)))
                if after > 0:
                    kept.append(ring[i])
            ring = np.array(kept).reshape(-1, 2)
    return ring


def _cut_bitmap(mask: Mask, bitmap: Bitmap, size: tuple[int, int], notes: Notes, where: str) -> _Patch:
    top, left = max(-bitmap.top, 0), max(-bitmap.left, 0)
    inside = mask[top : max(size[0] - bitmap.top, 0), left : max(size[1] - bitmap.left, 0)]
    if int(inside.sum()) < int(mask.sum()):
        notes.add("masks leave their image and are cut off", where)
    return _Patch(max(bitmap.top, 0), max(bitmap.left, 0), inside)
