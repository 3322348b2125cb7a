"""Checks of a dataset's lists of files: what is left out, and which names do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from segkd.data.base import FileDataset
from segkd.data.folder import METADATA_FILE, Folder
from segkd.data.integrity import Issue, SampleReport
from segkd.data.label_names import LOSSY_SUFFIXES, find_missing_labels, find_same_names


def find_file_issues(splits: Mapping[str, FileDataset]) -> Iterator[Issue]:
    """Compare the images, the labels and the other files of each split by their names.

    Yields:
        Faults for labels under another name than expected, labels without an image, and images that differ only in their
        suffix; notes for images that are left out, and for labels that are JPEGs.
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
        lossy = [label for _, label in split.files if label.suffix.lower() in LOSSY_SUFFIXES]
        if lossy:
            count = f"{lossy[0]} and {len(lossy) - 1} more labels of {split.split} are JPEGs"
            yield Issue(
                split.root, "lossy", f"{count}, whose compression may have changed ids; export them as PNG", "note"
            )


def find_size_issue(dataset: FileDataset, samples: Mapping[str, Sequence[SampleReport]]) -> Iterator[Issue]:
    """Yield a note if `size` is [width, height]: no image has it, and most have its reverse."""
    sizes = Counter(report.size for reports in samples.values() for report in reports if report.size)
    height, width = dataset.size
    if isinstance(dataset, Folder) and dataset.size not in sizes and 2 * sizes[width, height] > sizes.total():
        message = f"`size: [{height}, {width}]` is no image's height and width; write `size: [{width}, {height}]`, which most have"
        yield Issue(dataset.root / METADATA_FILE, "size", message, "note")
