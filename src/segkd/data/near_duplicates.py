"""Find images that show nearly the same: consecutive frames of a video, copies of another size or compression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segkd.data.image_io import Array, read_image
from segkd.errors import UserError
from segkd.utils.threads import thread_map

MAX_DISTANCE = 0.3
"""Greatest distance of near-duplicates, 0 to 1; see `compute_distances`."""
_SIZE = 13  # pixels a side of the reduced image, so 2 · 12² comparisons
_MIN_CONTRAST = 4  # gray levels between neighbors; less may be noise
_MIN_COMPARISONS = 16  # with contrast in one of two images; fewer say nothing
_CHUNK = 512  # images that are compared with all others at once

Fingerprints = npt.NDArray[np.float32]
"""N 288, values -1, 0 and 1."""


def group_near_duplicates(paths: Sequence[Path], workers: int = 8, progress: str = "") -> list[list[Path]]:
    """Return the groups of at least two images that are linked by near-duplicates, each in the order of the paths.

    A sequence is one group if each frame is a near-duplicate of the next. An image that cannot be read is in no group.

    Args:
        paths: Image files.
        workers: Threads that read.
        progress: Text of the progress bar; empty for none.
    """
    fingerprints = compute_fingerprints(paths, workers, progress)
    labels = _label_groups(fingerprints)
    groups: dict[int, list[Path]] = defaultdict(list)
    for path, label in zip(paths, labels, strict=True):
        groups[label].append(path)
    return [group for group in groups.values() if len(group) > 1]


def compute_fingerprints(paths: Sequence[Path], workers: int, progress: str) -> Fingerprints:
    """Return the fingerprint of each image; zeros where a file cannot be read."""
    rows = list(thread_map(_read_fingerprint, paths, workers, progress))
    return np.stack(rows) if rows else np.zeros((0, 2 * (_SIZE - 1) ** 2), np.float32)


def compute_fingerprint(gray: Array) -> npt.NDArray[np.float32]:
    """Return a difference hash with three values: whether each pixel of the reduced image is darker or brighter than its
    right and its lower neighbor, or about equal.

    Args:
        gray: Image, H W.
    """  # noqa: D205
    reduced = cv2.resize(gray, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA).astype(np.int16)
    corner = reduced[:-1, :-1]
    differences = np.stack([reduced[:-1, 1:] - corner, reduced[1:, :-1] - corner])
    return np.where(np.abs(differences) >= _MIN_CONTRAST, np.sign(differences), 0).ravel().astype(np.float32)


def compute_distances(some: Fingerprints, others: Fingerprints) -> npt.NDArray[np.float32]:
    """Return the part of the comparisons with contrast in either of two images that differ between them; 1 if there are few.

    Frames that are shifted by 3 % of the width, noise, JPEG, half the size and another brightness stay below 0.3; of 200,000 pairs
    of other scenes (streets of CamVid and synthetic ones) none is below 0.4.
    """
    marked, others_marked = np.abs(some), np.abs(others)
    both = marked @ others_marked.T
    equal = (both + some @ others.T) / 2
    either = marked.sum(1)[:, None] + others_marked.sum(1)[None] - both
    distances = 1 - equal / np.maximum(either, 1)
    return np.where(either >= _MIN_COMPARISONS, distances, np.float32(1))


def find_nearest(fingerprints: Fingerprints, others: Fingerprints) -> list[tuple[int, float]]:
    """Return for each fingerprint the index of the nearest of the others, which are some, and its distance."""
    nearest: list[tuple[int, float]] = []
    for start in range(0, len(fingerprints), _CHUNK):
        distances = compute_distances(fingerprints[start : start + _CHUNK], others)
        nearest += zip(distances.argmin(1).tolist(), distances.min(1).tolist(), strict=True)
    return nearest


def _read_fingerprint(path: Path) -> npt.NDArray[np.float32]:
    try:
        return compute_fingerprint(read_image(path, cv2.IMREAD_GRAYSCALE))
    except UserError:  # reported where the image is used
        return np.zeros(2 * (_SIZE - 1) ** 2, np.float32)


def _label_groups(fingerprints: Fingerprints) -> list[int]:
    """Return for each image the index of the first one that it is linked to."""
    labels = np.arange(len(fingerprints))
    for start in range(0, len(fingerprints), _CHUNK):
        is_near = compute_distances(fingerprints[start : start + _CHUNK], fingerprints[start:]) <= MAX_DISTANCE
        for offset, row in enumerate(is_near):
            linked = np.unique(np.append(labels[start:][row], labels[start + offset]))
            if len(linked) > 1:
                labels[np.isin(labels, linked)] = linked[0]
    found: list[int] = labels.tolist()
    return found
