"""Comparison of the label files of a dataset: their forms and palettes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.folder import METADATA_FILE
from segkd.data.image_io import Color
from segkd.data.integrity import Issue, SampleReport
from segkd.data.palettes import describe_other_color


def find_palette_issues(dataset: FileDataset, samples: Sequence[SampleReport]) -> Iterator[Issue]:
    """Report the labels in which a palette index has another color than its class was given, or than in most labels."""
    given = dataset.get_given_palette()
    labels_by_color: dict[int, dict[Color, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for index, color in sample.palette.items():
            labels_by_color[index][color].append(sample.label)
    reported: set[Path] = set()
    for index, by_color in labels_by_color.items():
        expected = given[index] if index in given else max(by_color, key=lambda color: len(by_color[color]))
        source = METADATA_FILE if index in given else str(by_color[expected][0])
        for color, labels in by_color.items():
            for label in labels:
                if color != expected and label not in reported:
                    reported.add(label)
                    yield Issue(label, "palette", describe_other_color(label, index, color, expected, source))


def find_conversions(samples: Sequence[SampleReport]) -> Iterator[Issue]:
    """Note once for each unusual form in which labels are stored, how it is read."""
    labels_by_conversion: dict[str, list[Path]] = defaultdict(list)
    for sample in samples:
        if sample.conversion:
            labels_by_conversion[sample.conversion].append(sample.label)
    for conversion, labels in labels_by_conversion.items():
        subject = f"label {labels[0]} has" if len(labels) == 1 else f"label {labels[0]} and {len(labels) - 1} more have"
        yield Issue(labels[0], "form", f"{subject} {conversion}", "note")
