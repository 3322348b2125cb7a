"""Which classes the labels of a dataset hold, and which pixels are ignored."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.folder import METADATA_FILE, Folder
from segkd.data.integrity import Issue, SampleReport
from segkd.data.statistics import ClassCounts, count_classes, count_label, sum_counts
from segkd.types import IGNORE_INDEX
from segkd.utils.threads import thread_map

log = logging.getLogger(__name__)

_MIN_PROBED = 64
_PROBED_PART = 8  # one label in eight is read before all are
_LARGE_SPLIT = 1000  # labels, from which on reading them all shows its progress
_MAX_LISTED = 8
_MAX_UNWRITTEN_SHARE = 0.05  # of pixels that are ignored by default; VOC's outlines have as much
_MAX_IGNORED_SHARE = 0.5


def count_unless_covered(
    dataset: SegmentationDataset, wanted: Collection[int] | None = None, workers: int = 2
) -> ClassCounts | None:
    """Return None if labels of the split hold every wanted class, and any class at all; otherwise the counts of the split.

    Labels at even distances are read until they hold the classes; as a rule a few do. The counts of the split are cached.

    Args:
        dataset: The split.
        wanted: Class indices; None for all classes.
        workers: Threads.
    """
    missing = set(range(len(dataset.classes)) if wanted is None else wanted)
    number = min(len(dataset), max(_MIN_PROBED, len(dataset) // _PROBED_PART))
    indices = np.unique(np.linspace(0, len(dataset) - 1, number).astype(int)).tolist()
    is_labeled = False
    for label in thread_map(partial(count_label, dataset), indices, workers, ""):
        found = np.flatnonzero(label.pixels[:-1]).tolist()
        missing.difference_update(found)
        is_labeled |= bool(found)
        if is_labeled and not missing:
            return None
    title = f"classes of {dataset.display_name} {dataset.split}"
    counts = count_classes(dataset, workers, title if len(dataset) >= _LARGE_SPLIT else "")
    return counts if not any(counts.pixels[:-1]) or missing & {*find_absent_classes(counts)} else None


def find_absent_classes(counts: ClassCounts) -> list[int]:
    """Return the indices of the classes without a pixel."""
    return [index for index, pixels in enumerate(counts.pixels[:-1]) if not pixels]


def merge_counts(parts: Sequence[ClassCounts]) -> ClassCounts:
    """Add up the counts of splits of one dataset."""
    ignored: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
    pixels, images_with, pixels_of_images = (
        np.sum(rows, 0).tolist()
        for rows in zip(*((part.pixels, part.images_with, part.pixels_of_images) for part in parts), strict=True)
    )
    return ClassCounts(pixels, images_with, pixels_of_images, ignored)


def warn_of_absent_classes(dataset: SegmentationDataset) -> None:
    """Warn on stderr of classes that no label of a split holds; say nothing of a split without labels."""
    counts = count_unless_covered(dataset)
    if counts is not None and any(counts.pixels[:-1]):
        log.warning("%s", explain_absent(dataset, find_absent_classes(counts), f"no label of {dataset.split}", counts))


def find_class_issues(
    dataset: FileDataset, samples: Mapping[str, Sequence[SampleReport]], is_complete: bool
) -> Iterator[Issue]:
    """Find classes that no label holds, and pixels that may be ignored by mistake.

    Args:
        dataset: The dataset, any split of it.
        samples: Split → reports on its samples.
        is_complete: Whether these are all splits.

    Yields:
        A fault for classes that no label of the dataset holds, and notes: where some labels are not known, for classes that
        the training split alone lacks, and for many ignored pixels.
    """
    path = dataset.root / METADATA_FILE if isinstance(dataset, Folder) else dataset.root
    known = {name: [report.counts for report in reports if report.counts] for name, reports in samples.items()}
    splits = {name: sum_counts(labels, len(dataset.classes)) for name, labels in known.items() if labels}
    if not splits:
        return
    total = merge_counts([*splits.values()])
    if absent := find_absent_classes(total):
        num_known, num_labels = (sum(map(len, lists.values())) for lists in (known, samples))
        is_certain = is_complete and num_known == num_labels
        scope = f"no label of {'any split' if is_complete else _join([*splits], 'or')}"
        scope = scope if num_known == num_labels else f"none of the {num_known} labels that can be read"
        sentence = explain_absent(dataset, absent, scope, total)
        if is_certain and isinstance(dataset, Folder):
            sentence += f"; a class that is meant to be absent is left out of {METADATA_FILE}"
        yield Issue(path, "class", sentence, "fault" if is_certain else "note")
    train = splits.get("train", total)
    if lacking := [index for index in find_absent_classes(train) if index not in absent]:
        others = [name for name, counts in splits.items() if any(counts.pixels[index] for index in lacking)]
        scope = f"no label of train, only in those of {_join(others)}"
        yield Issue(path, "class", explain_absent(dataset, lacking, scope, train), "note")
    labeled = [label for labels in known.values() for label in labels if label.pixels[:-1].any()]
    if not absent and (message := _explain_large_void(dataset, sum_counts(labeled, len(dataset.classes)))):
        yield Issue(path, "ignored", message, "note")


def _explain_large_void(dataset: FileDataset, counts: ClassCounts) -> str:
    """Return a sentence if more is ignored than usual: half of the pixels, or less where nothing says that they are."""
    is_unwritten = isinstance(dataset, Folder) and dataset.ignores_by_default
    limit = _MAX_UNWRITTEN_SHARE if is_unwritten else _MAX_IGNORED_SHARE
    if counts.pixels[-1] <= limit * sum(counts.pixels):
        return ""
    sentence = explain_ignored(dataset, counts, "a class")
    return f"{sentence}; otherwise write `ignore: [{', '.join(counts.ignored)}]`" if is_unwritten else sentence


def explain_absent(dataset: SegmentationDataset, absent: Sequence[int], scope: str, counts: ClassCounts) -> str:
    """Return a sentence on classes that labels lack: their names, what the labels hold instead, and the cure if it is known.

    Args:
        dataset: The dataset.
        absent: Indices of the classes.
        scope: Where they are not, such as "no label of train".
        counts: Counts of the labels in question.
    """
    names = [_describe_class(dataset, index) for index in absent[:_MAX_LISTED]]
    names += [f"{len(absent) - _MAX_LISTED} more classes"] if len(absent) > _MAX_LISTED else []
    sentence = f"{_join(names)} {'is' if len(absent) == 1 else 'are'} in {scope}"
    if cause := explain_ignored(dataset, counts, "the class" if len(absent) == 1 else "one of these classes"):
        return f"{sentence}; {cause}"
    if not isinstance(dataset, Folder):
        return sentence
    present = [
        value for value, index in dataset.label_map.items() if index < len(counts.pixels) and counts.pixels[index]
    ]
    return f"{sentence}; the labels hold the {_name_values(dataset, present)}"


def explain_ignored(dataset: SegmentationDataset, counts: ClassCounts, wanted: str) -> str:
    """Return a clause on the ignored pixels: their share, their values, and the cure; empty if there are none.

    Args:
        dataset: The dataset.
        counts: Counts of its labels.
        wanted: What the ignored pixels may be, such as "the class".
    """
    void, total = counts.pixels[-1], sum(counts.pixels)
    if not void:
        return ""
    values = sorted(counts.ignored, key=lambda value: -counts.ignored[value])
    values, hidden = values[:_MAX_LISTED], ", …" * (len(values) > _MAX_LISTED)
    if not isinstance(dataset, Folder):
        listed = f" ({_get_kind(dataset)}s {', '.join(values)}{hidden})" if values else ""
        return f"{_format_share(void, total)} of the pixels are ignored{listed}"
    shares = [_format_share(counts.ignored[value], total) for value in values]
    found = _join([f"{shares[0]} of the pixels are {values[0]}", *map("{} are {}".format, shares[1:], values[1:])])
    if dataset.ignores_by_default:
        reason = f"which is ignored unless {METADATA_FILE} says otherwise"
        return f"{found}, {reason}; if that is {wanted}, give it `id: {values[0]}`"
    is_single, kind = len(values) == 1, _get_kind(dataset)
    given = f"`id: {values[0]}`" if is_single and kind == "id" else f"that {kind}"
    is_last = list(dataset.label_map.values()).count(IGNORE_INDEX) == 1
    return (
        f"{found}, which {METADATA_FILE} ignores; if {'that' if is_single else 'one of them'} is {wanted}, "
        f"give it {given} and {'write `ignore: []`' if is_last else f'take that {kind} out of `ignore`'}"
    )


def _describe_class(dataset: SegmentationDataset, index: int) -> str:
    """Return a class with its ids or colors in label files."""
    name = dataset.classes[index]
    if not isinstance(dataset, FileDataset):
        return name
    values = [value for value, target in dataset.label_map.items() if target == index]
    return f"{name} ({_name_values(dataset, values)})"


def _name_values(dataset: FileDataset, values: Sequence[int]) -> str:
    """Return values of label files with what they are: 'id 1', or 'colors #000000, #ff0000'."""
    return f"{_get_kind(dataset)}{'s' * (len(values) > 1)} {dataset.format_values(values)}"


def _get_kind(dataset: SegmentationDataset) -> str:
    return "color" if isinstance(dataset, FileDataset) and dataset.label_encoding == "colors" else "id"


def _format_share(part: int, total: int) -> str:
    percent = 100 * part / total
    return f"{percent:.1f} %" if percent >= 0.1 else "less than 0.1 %"


def _join(words: Sequence[str], conjunction: str = "and") -> str:
    """Return 'a', 'a and b', or 'a, b and c'."""
    return f" {conjunction} ".join(filter(None, (", ".join(words[:-1]), words[-1])))
