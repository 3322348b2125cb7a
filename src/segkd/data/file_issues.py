"""Checks of a dataset's lists of files: what is left out, and which names do not fit."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from segkd.data.base import FileDataset
from segkd.data.discovery import count_files
from segkd.data.folder import METADATA_FILE, Folder
from segkd.data.image_header import count_full_pages
from segkd.data.integrity import Issue, SampleReport
from segkd.data.label_names import find_lossy_labels, find_missing_labels, find_same_names

_TIFF_SUFFIXES = (".tif", ".tiff")
_PAGED_SUFFIXES = (*_TIFF_SUFFIXES, ".webp")


def find_file_issues(splits: Mapping[str, FileDataset]) -> Iterator[Issue]:
    """Compare the images, the labels and the other files of each split by their names.

    Yields:
        Faults for labels under another name than expected, labels without an image, and images that differ only in their
        suffix; notes for images that are left out, for labels that are JPEGs, for files of several pages, and for splits by rule.
    """
    unpaired = {label for name, split in splits.items() for label in split.find_labels_without_image(name)}
    for label in sorted(unpaired):
        yield Issue(label, "no image", f"{label} has no image")
    for split in splits.values():
        if split.misnamed_labels:
            (sentence,) = find_missing_labels(split.title, split.files, split.misnamed_labels)
            yield Issue(next(iter(split.misnamed_labels.values())), "label name", sentence)
        for image, sentence in find_same_names(split.files).items():
            yield Issue(image, "name", sentence)
        for sentence in split.describe_left_out():
            yield Issue(split.root, "left out", sentence, "note")
        for sentence in find_lossy_labels(split.files):
            yield Issue(split.root, "lossy", sentence, "note")
        # A TIFF of several pages is refused as a label.
        paths = [
            path for image, label in split.files for path in (image, label) if path == image or not _is_tiff(label)
        ]
        paged = [path for path in paths if _count_pages(path) > 1]
        if paged:
            message = f"{count_files(paged)} of several pages or frames, of which the first is read"
            yield Issue(split.root, "pages", message, "note")
    first = next(iter(splits.values()))
    if isinstance(first, Folder) and (sentence := first.describe_splits()):
        yield Issue(first.root / METADATA_FILE, "splits", sentence, "note")


def find_size_issue(dataset: FileDataset, samples: Mapping[str, Sequence[SampleReport]]) -> Iterator[Issue]:
    """Yield a note if `size` is [width, height]: no image has it, and most have its reverse."""
    sizes = Counter(report.size for reports in samples.values() for report in reports if report.size)
    height, width = dataset.size
    if isinstance(dataset, Folder) and dataset.size not in sizes and 2 * sizes[width, height] > sizes.total():
        message = f"`size: [{height}, {width}]` is no image's height and width; write `size: [{width}, {height}]`, which most have"
        yield Issue(dataset.root / METADATA_FILE, "size", message, "note")


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in _TIFF_SUFFIXES


def _count_pages(path: Path) -> int:
    """Return the number of pages or frames of a TIFF or WebP; 1 for other and for damaged files, which are reported elsewhere."""
    if path.suffix.lower() not in _PAGED_SUFFIXES:
        return 1
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # Pillow warns of large images
            return count_full_pages(image)
    except Exception:
        return 1
