"""Checks of a dataset's files, one by one and against each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from segkd.data.base import FileDataset
from segkd.data.image_io import (
    Array,
    Color,
    decode_image,
    decode_label,
    decode_palette_indices,
    read_bytes,
    read_exif_orientation,
    read_palette,
)
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_MAX_COLORS = 256  # in one label; a file with more is a photograph
_FIRST_TRANSPOSED = 5  # from this EXIF orientation on, height and width are exchanged


class Issue(NamedTuple):
    """A fault of a file, or a note on a file that is used as it is."""

    path: Path
    kind: str
    message: str
    severity: Literal["fault", "note"] = "fault"


class SampleReport(NamedTuple):
    """Result of inspecting one sample."""

    path: Path
    name: str
    issues: list[Issue]
    size: tuple[int, int] | None = None
    """Height and width of the image; None if it cannot be read."""
    digest: str | None = None
    """Hash of the image's pixels, whatever the file format."""
    colors: Mapping[int, Color] = {}
    """Label value → RGB, if the label's encoding is not that of the dataset."""
    label_encoding: str | None = None
    """Encoding of such a label: palette or colors."""


def inspect_sample(dataset: FileDataset, index: int) -> SampleReport:
    """Read image and label of a sample completely and report their issues."""
    image, label = dataset.files[index]
    report = _inspect_image(image, dataset.get_name(index))
    if not label.exists():
        issue = Issue(image, "no label", f"{image} has no label; expected {label}")
        return report._replace(issues=[*report.issues, issue])
    issues, encoding, colors = _inspect_label(dataset, label, report.size)
    return report._replace(issues=[*report.issues, *issues], label_encoding=encoding, colors=colors)


def _inspect_image(path: Path, name: str) -> SampleReport:
    try:
        content = read_bytes(path)
        image = decode_image(content, path, cv2.IMREAD_UNCHANGED)
    except UserError as error:
        return SampleReport(path, name, [Issue(path, "unreadable", str(error))])
    issues, height, width = [], image.shape[0], image.shape[1]
    if image.dtype != np.uint8:
        issues.append(Issue(path, "mode", f"{path} has {8 * image.itemsize} bits per channel; convert it to 8"))
    if image.ndim == 2:
        issues.append(Issue(path, "grey", f"{path} is grayscale; it is read as RGB", "note"))
    elif image.shape[2] == 4:
        issues.append(Issue(path, "alpha", f"{path} has an alpha channel, which is dropped", "note"))
    if (orientation := read_exif_orientation(content)) != 1:
        message = f"{path} is rotated by its EXIF orientation ({orientation}); its label must be rotated too"
        issues.append(Issue(path, "turned", message, "note"))
    size = (width, height) if orientation >= _FIRST_TRANSPOSED else (height, width)
    return SampleReport(path, name, issues, size, _hash_pixels(image))


def _hash_pixels(image: Array) -> str:
    return hashlib.sha256(repr((image.shape, image.dtype.name)).encode() + image.tobytes()).hexdigest()


def _inspect_label(
    dataset: FileDataset, path: Path, size: tuple[int, int] | None
) -> tuple[list[Issue], str | None, Mapping[int, Color]]:
    """Return the first issue of a label, since later ones would have the same cause, and any other encoding with its colors."""
    try:
        content = read_bytes(path)
        decode_image(content, path, cv2.IMREAD_UNCHANGED)
    except UserError as error:
        return [Issue(path, "unreadable", str(error))], None, {}
    try:
        label = decode_label(content, path, dataset.label_encoding)
    except UserError as error:
        return [Issue(path, "mode", str(error))], *_detect_encoding(content, path)
    if size is not None and label.shape != size:
        message = (
            f"label {path} is {label.shape[0]}×{label.shape[1]}, its image {size[0]}×{size[1]}; make them the same size"
        )
        return [Issue(path, "size", message)], None, {}
    try:
        classes = dataset.to_classes(label, path)
    except UserError as error:
        return [Issue(path, "ids", str(error))], None, {}
    is_empty = (classes == IGNORE_INDEX).all()
    return [Issue(path, "void", f"{path} has no labeled pixel", "note")] if is_empty else [], None, {}


def _detect_encoding(content: bytes, path: Path) -> tuple[str | None, Mapping[int, Color]]:
    """Return the encoding of a label, and its values with their colors."""
    if (indices := decode_palette_indices(content, path)) is not None:
        palette = dict(enumerate(read_palette(content)))
        return "palette", {int(index): palette.get(int(index), (0, 0, 0)) for index in np.unique(indices)}
    try:
        values = np.unique(decode_label(content, path, "colors")).tolist()
    except UserError:
        return None, {}
    if len(values) > _MAX_COLORS:
        return None, {}
    return "colors", {value: (value >> 16, value >> 8 & 255, value & 255) for value in values}


def find_cross_split_issues(splits: Mapping[str, Sequence[SampleReport]]) -> Iterator[Issue]:
    """Compare samples with each other.

    Yields:
        Faults for the same pixels, and for the same name of different pixels, in two splits; notes for the same pixels twice in
        one split.
    """
    by_digest: dict[str, list[tuple[str, SampleReport]]] = defaultdict(list)
    by_name: dict[str, list[tuple[str, SampleReport]]] = defaultdict(list)
    for split, reports in splits.items():
        for report in reports:
            by_name[report.name].append((split, report))
            if report.digest is not None:
                by_digest[report.digest].append((split, report))
    for group in by_digest.values():
        yield from _find_duplicates(group)
    for group in by_name.values():
        yield from _find_name_clashes(group)


def _find_duplicates(group: Sequence[tuple[str, SampleReport]]) -> Iterator[Issue]:
    """Report samples of the same pixels; of several others, name one, preferably in another split."""
    for split, report in group:
        path = report.path
        others = [(other_split, other) for other_split, other in group if (other_split, other.path) != (split, path)]
        elsewhere = [(other_split, other) for other_split, other in others if other_split != split]
        for other_split, other in (elsewhere or others)[:1]:
            in_splits = " and ".join(sorted({split, other_split}))
            relation = f"shows the same as {other.path}" if other.path != path else "is listed twice"
            severity: Literal["fault", "note"] = "fault" if elsewhere else "note"
            yield Issue(path, "duplicate", f"{path} {relation} (in {in_splits})", severity)


def _find_name_clashes(group: Sequence[tuple[str, SampleReport]]) -> Iterator[Issue]:
    """Report samples of the same name but different pixels in two splits."""
    for split, report in group:
        others = [
            (other_split, other)
            for other_split, other in group
            if other_split != split and not _is_same_image(report, other)
        ]
        for other_split, other in others[:1]:
            message = f"{report.path} has the name of {other.path} (in {split} and {other_split})"
            yield Issue(report.path, "name", message)


def _is_same_image(one: SampleReport, other: SampleReport) -> bool:
    return one.path == other.path or (one.digest is not None and one.digest == other.digest)
