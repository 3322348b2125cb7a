"""Checks of a dataset's files, one by one and against each other."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from segkd.data.base import FileDataset
from segkd.data.image_header import read_exif_orientation
from segkd.data.image_io import Array, Color, DamagedFileError, decode_image, read_bytes
from segkd.data.label_io import decode_label
from segkd.data.near_duplicates import compute_fingerprint
from segkd.data.palettes import collect_used_colors
from segkd.data.statistics import LabelCounts, count_values
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_MAX_COLORS = 256  # in one label; a file with more is a photograph


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
    orientation: int = 1
    """EXIF orientation of the image."""
    label: Path = Path()
    """The label file, which may be missing."""
    colors: Mapping[int, Color] = {}
    """Label value → RGB, if the label's encoding is not that of the dataset."""
    label_encoding: str | None = None
    """Encoding of such a label: palette or colors."""
    conversion: str = ""
    """How the stored form of the label differs from the usual one; see `Label`."""
    palette: Mapping[int, Color] = {}
    """Palette index → RGB of the indices in the label, if the dataset's labels are such indices."""
    counts: LabelCounts | None = None
    """Pixels of each class; None if the label cannot be read."""
    fingerprint: npt.NDArray[np.float32] | None = None
    """See `compute_fingerprint`; None if the image cannot be read, or has 16 bits."""


def inspect_sample(dataset: FileDataset, index: int) -> SampleReport:
    """Read image and label of a sample completely and report their issues."""
    image, label = dataset.files[index]
    report = _inspect_image(image, dataset.get_name(index))._replace(label=label)
    if not label.exists():
        issue = Issue(image, "no label", f"{image} has no label; expected {label}")
        return report._replace(issues=[*report.issues, issue])
    return _inspect_label(dataset, label, report)


def _inspect_image(path: Path, name: str) -> SampleReport:
    try:
        content = read_bytes(path)
        image = decode_image(content, path, cv2.IMREAD_UNCHANGED)
    except UserError as error:
        return SampleReport(path, name, [Issue(path, "unreadable", str(error))])
    issues = []
    if image.dtype != np.uint8:
        issues.append(Issue(path, "mode", f"{path} has {8 * image.itemsize} bits per channel; convert it to 8"))
    if image.ndim == 2:
        issues.append(Issue(path, "grey", f"{path} is grayscale; it is read as RGB", "note"))
    elif image.shape[2] == 4:
        issues.append(Issue(path, "alpha", f"{path} has an alpha channel, which is dropped", "note"))
    size = (image.shape[0], image.shape[1])
    fingerprint = compute_fingerprint(_to_gray(image)) if image.dtype == np.uint8 else None
    report = SampleReport(path, name, issues, size, _hash_pixels(image), read_exif_orientation(content))
    return report._replace(fingerprint=fingerprint)


def _to_gray(image: Array) -> Array:
    return image if image.ndim == 2 else cast("Array", cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY))


def _hash_pixels(image: Array) -> str:
    return hashlib.sha256(repr((image.shape, image.dtype.name)).encode() + image.tobytes()).hexdigest()


def _inspect_label(dataset: FileDataset, path: Path, report: SampleReport) -> SampleReport:
    """Add the label to the report on its image: its counts, or its first issue, since later ones would have the same cause."""

    def add_issue(kind: str, message: str, severity: Literal["fault", "note"] = "fault") -> SampleReport:
        return report._replace(issues=[*report.issues, Issue(path, kind, message, severity)])

    try:
        content = read_bytes(path)
        report = report._replace(issues=[*report.issues, *_find_turned(report, path, read_exif_orientation(content))])
        decoded = decode_label(content, path, dataset.label_encoding)
    except DamagedFileError as error:
        return add_issue("unreadable", str(error))
    except UserError as error:
        encoding, colors = _detect_encoding(content, path)
        return add_issue("mode", str(error))._replace(label_encoding=encoding, colors=colors)
    label = decoded.values
    report = report._replace(palette=collect_used_colors(decoded), conversion=decoded.conversion)
    if report.size is not None and label.shape != report.size:
        sizes = f"{label.shape[0]}×{label.shape[1]}, its image {report.size[0]}×{report.size[1]}"
        return add_issue("size", f"label {path} is {sizes}; make them the same size")
    try:
        classes = dataset.to_classes(label, path)
    except UserError as error:
        return add_issue("ids", str(error))
    report = report._replace(counts=count_values(dataset, label, classes))
    if (classes == IGNORE_INDEX).all():
        return add_issue("void", f"{path} has no labeled pixel", "note")
    return report


def _find_turned(report: SampleReport, label: Path, orientation: int) -> Iterator[Issue]:
    """Note an image and a label that are turned by their EXIF orientation.

    Args:
        report: Report on the image.
        label: The label file.
        orientation: EXIF orientation of the label.
    """
    image = (report.path, "image", report.orientation)
    for (path, _, mine), (_, other, theirs) in itertools.permutations((image, (label, "label", orientation))):
        relation = f"and its {other} {'is not' if theirs == 1 else f'otherwise ({theirs})'}; make sure that they match"
        relation = f"as its {other} is" if mine == theirs else relation
        if mine != 1:
            yield Issue(path, "turned", f"{path} is turned by its EXIF orientation ({mine}), {relation}", "note")


def _detect_encoding(content: bytes, path: Path) -> tuple[str | None, Mapping[int, Color]]:
    """Return the encoding of a label that is not of its dataset's, and its values with their colors."""
    for encoding in ("palette", "colors"):
        try:
            label = decode_label(content, path, encoding)
        except UserError:
            continue
        if label.palette:
            return "palette", collect_used_colors(label)
        values = np.unique(label.values).tolist()
        if encoding == "colors" and len(values) <= _MAX_COLORS:
            return "colors", {value: (value >> 16, value >> 8 & 255, value & 255) for value in values}
    return None, {}


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
