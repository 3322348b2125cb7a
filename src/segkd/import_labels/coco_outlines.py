"""Notice outlines of pixel indices: their boxes are a pixel larger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_TOLERANCE = 0.01  # pixels
_MOST = 0.9


def are_outlines_indices(annotations: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether nearly all boxes are a pixel wider and higher than their outlines of whole numbers.

    `cv2.findContours` and `cv2.boundingRect` return such: the box of one pixel is 1×1, its outline a point.
    """
    checked = [is_larger for annotation in annotations if (is_larger := _has_larger_box(annotation)) is not None]
    return bool(checked) and sum(checked) >= _MOST * len(checked)


def _has_larger_box(annotation: Mapping[str, Any]) -> bool | None:
    """Return whether a box is larger than its outline by a pixel; None if there is no box or no outline."""
    try:
        points = np.concatenate([np.array(part, np.float64).reshape(-1, 2) for part in annotation["segmentation"]])
        _, _, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if len(points) == 0 or not np.isfinite(points).all():
        return None
    extent = points.max(0) - points.min(0)
    is_whole = bool((points == np.rint(points)).all())
    return is_whole and np.allclose((width, height), extent + 1, atol=_TOLERANCE)
