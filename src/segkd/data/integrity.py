"""What is wrong with the files of a data set: found file by file, and by comparing files with each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from segkd.data.base import FileDataset
from segkd.data.image_io import (
    Array,
    decode_label,
    exif_orientation,
    palette_indices,
    read_bytes,
    read_image,
    read_palette,
)
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

Color = tuple[int, int, int]

_MOST_COLORS = 256  # in one label; more are a photograph's
_TURNED = 5  # from this EXIF orientation on, height and width change places


class Issue(NamedTuple):
    """Something that is wrong with a file; or, as a note, worth knowing of it."""

    path: Path
    kind: str
    what: str
    """A sentence."""
    note: bool = False


class SampleReport(NamedTuple):
    """What one sample turned out to be."""

    path: Path
    name: str
    faults: list[Issue]
    size: tuple[int, int] | None = None
    """Height and width of the image; None where it cannot be read."""
    digest: str | None = None
    """Of the image's pixels: the same picture has the same, in whichever file."""
    colors: Mapping[int, Color] = {}
    """RGB by code, of a label that is coded in another way than the data set says."""
    coding: str | None = None
    """How that label is coded: palette or colors."""


def inspect_sample(dataset: FileDataset, index: int) -> SampleReport:
    """Read image and label of a sample to their ends."""
    image, label = dataset.files[index]
    seen = _image(image, dataset.name(index))
    if not label.exists():
        return seen._replace(faults=[*seen.faults, Issue(image, "no label", f"{image} has no label; expected {label}")])
    faults, coding, colors = _label(dataset, label, seen.size)
    return seen._replace(faults=[*seen.faults, *faults], coding=coding, colors=colors)


def _image(path: Path, name: str) -> SampleReport:
    try:
        content = read_bytes(path)
        image = read_image(content, path, cv2.IMREAD_UNCHANGED)
    except UserError as error:
        return SampleReport(path, name, [Issue(path, "unreadable", str(error))])
    faults, height, width = [], image.shape[0], image.shape[1]
    if image.dtype != np.uint8:
        faults.append(Issue(path, "mode", f"{path} has {8 * image.itemsize} bits a channel; convert it to 8"))
    if image.ndim == 2:
        faults.append(Issue(path, "grey", f"{path} is grey; it serves as red, green and blue alike", note=True))
    elif image.shape[2] == 4:
        faults.append(Issue(path, "alpha", f"{path} has an alpha channel, which is left out", note=True))
    if (turn := exif_orientation(content)) != 1:
        faults.append(
            Issue(path, "turned", f"{path} is turned, as its EXIF says ({turn}); its label must be too", note=True)
        )
    size = (width, height) if turn >= _TURNED else (height, width)
    return SampleReport(path, name, faults, size, _digest(image))


def _digest(image: Array) -> str:
    return hashlib.sha256(repr((image.shape, image.dtype.name)).encode() + image.tobytes()).hexdigest()


def _label(
    dataset: FileDataset, path: Path, size: tuple[int, int] | None
) -> tuple[list[Issue], str | None, Mapping[int, Color]]:
    """Its first fault, since the next would have the same cause; and, where it is coded otherwise, how and with which colours."""
    try:
        content = read_bytes(path)
        read_image(content, path, cv2.IMREAD_UNCHANGED)
    except UserError as error:
        return [Issue(path, "unreadable", str(error))], None, {}
    try:
        coded = decode_label(content, path, dataset.coding)
    except UserError as error:
        return [Issue(path, "mode", str(error))], *_coded_as(content, path)
    if size is not None and coded.shape != size:
        what = (
            f"label {path} is {coded.shape[0]}×{coded.shape[1]}, its image {size[0]}×{size[1]}; make them the same size"
        )
        return [Issue(path, "size", what)], None, {}
    try:
        classes = dataset.to_classes(coded, path)
    except UserError as error:
        return [Issue(path, "ids", str(error))], None, {}
    empty = (classes == IGNORE_INDEX).all()
    return [Issue(path, "void", f"{path} has no labelled pixel", note=True)] if empty else [], None, {}


def _coded_as(content: bytes, path: Path) -> tuple[str | None, Mapping[int, Color]]:
    """How a label is coded, and its codes with their colours."""
    if (places := palette_indices(content, path)) is not None:
        known = dict(enumerate(read_palette(content)))
        return "palette", {int(place): known.get(int(place), (0, 0, 0)) for place in np.unique(places)}
    try:
        found = np.unique(decode_label(content, path, "colors")).tolist()
    except UserError:
        return None, {}
    if len(found) > _MOST_COLORS:
        return None, {}
    return "colors", {code: (code >> 16, code >> 8 & 255, code & 255) for code in found}


def cross_split_issues(splits: Mapping[str, Sequence[SampleReport]]) -> Iterator[Issue]:
    """The same picture twice, in two splits or, as a note, in one; and one name for two pictures."""
    by_digest: dict[str, list[tuple[str, SampleReport]]] = defaultdict(list)
    by_name: dict[str, list[tuple[str, SampleReport]]] = defaultdict(list)
    for split, samples in splits.items():
        for seen in samples:
            by_name[seen.name].append((split, seen))
            if seen.digest is not None:
                by_digest[seen.digest].append((split, seen))
    for group in by_digest.values():
        for split, seen in group:
            others = [(there, other) for there, other in group if (there, other.path) != (split, seen.path)]
            elsewhere = [(there, other) for there, other in others if there != split]
            for there, other in (elsewhere or others)[:1]:
                where = " and ".join(sorted({split, there}))
                what = f"shows the same as {other.path}" if other.path != seen.path else "is listed twice"
                yield Issue(seen.path, "duplicate", f"{seen.path} {what} (in {where})", note=not elsewhere)
    for group in by_name.values():
        for split, seen in group:
            others = [(there, other) for there, other in group if there != split and not _same(seen, other)]
            for there, other in others[:1]:
                yield Issue(seen.path, "name", f"{seen.path} has the name of {other.path} (in {split} and {there})")


def _same(one: SampleReport, other: SampleReport) -> bool:
    return one.path == other.path or (one.digest is not None and one.digest == other.digest)
