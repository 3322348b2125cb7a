"""Notice outlines of pixel indices, as `cv2.findContours` returns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segkd.import_labels.annotations import Points

_MOST = 0.9
_TOLERANCE = 0.01  # pixels
_MIN_ENDS = 3  # outlines at the last row or column, for each one before it


def are_outlines_indices(objects: Iterable[tuple[Mapping[str, Any], tuple[int, int] | None]]) -> bool:
    """Return whether outlines are whole numbers that seem to be indices of pixels.

    Then nearly all boxes are a pixel wider and higher, as those of `cv2.boundingRect` are; or outlines end at the index of
    the last row or column, far more of them than one before it, and none at the edge of the image, which is one more.

    Args:
        objects: Annotations, each with the height and width of its image.
    """
    larger = checked = ends = near = edges = 0
    for annotation, size in objects:
        points = _read_points(annotation.get("segmentation"))
        if points is None:
            continue
        if not (points == np.rint(points)).all():
            return False
        if (is_larger := _has_larger_box(points, annotation.get("bbox"))) is not None:
            checked += 1
            larger += is_larger
        if size is not None:
            last = points.max(0) - (size[1], size[0])
            ends += bool((last == -1).any())
            near += bool((last == -2).any())
            edges += bool((last >= 0).any())
    # Objects that the image cuts off are many at its last index; without such, as many end there by chance as before it.
    return (checked > 0 and larger >= _MOST * checked) or (edges == 0 and ends >= _MIN_ENDS * max(near, 1))


def _read_points(outline: Any) -> Points | None:
    """Return all points of an object; None if it has no outline."""
    if not isinstance(outline, list) or not outline:
        return None
    try:
        points = np.concatenate([np.array(part, np.float64).reshape(-1, 2) for part in outline])
    except (TypeError, ValueError, OverflowError):
        return None
    return points if len(points) and np.isfinite(points).all() else None


def _has_larger_box(points: Points, box: Any) -> bool | None:
    """Return whether a box is larger than an outline by a pixel; None if there is none."""
    try:
        _, _, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        return None
    return bool(np.allclose((width, height), points.max(0) - points.min(0) + 1, atol=_TOLERANCE))
