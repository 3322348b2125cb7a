"""Sentences on the values of label files: ids, palette indices or colors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segkd.data.image_io import LabelEncoding
from segkd.types import IGNORE_INDEX

_MAX_LISTED_COLORS = 8
_MIN_BLENDED_IDS, _MIN_BLENDED_COLORS = 3, 9  # from this number on, unknown values are probably blends of known ones


def explain_unknown_values(
    unknown: Sequence[int], label_map: Mapping[int, int], encoding: LabelEncoding, name: str
) -> str:
    """Return what is wrong with a label that holds values that its dataset does not define.

    Args:
        unknown: The values, ascending.
        label_map: Value → class index or IGNORE_INDEX.
        encoding: What the values mean.
        name: Name of the dataset.
    """
    kind = "colors" if encoding == "colors" else "ids"
    ignored = [value for value, index in label_map.items() if index == IGNORE_INDEX]
    between = [value for value in unknown if min(label_map) < value < max(label_map)]
    if len(between) >= (_MIN_BLENDED_COLORS if kind == "colors" else _MIN_BLENDED_IDS):
        cure = f"They lie between the {kind} of classes: if it was resized, or saved as JPEG, make it anew without mixing {kind}"
    elif ignored:
        cure = f"Map unlabeled pixels to an ignored one ({format_values(ignored, encoding)})"
    else:
        cure = "Correct the label, or add them to the classes or to the ignored ones"
    return f"holds the {kind} {format_values(unknown, encoding)}; {name} allows {format_values(label_map, encoding)}. {cure}"


def format_values(values: Iterable[int], encoding: LabelEncoding) -> str:
    """Return [0, 1, 2, 5] as '0–2, 5', or colors in hexadecimal."""
    if encoding != "colors":
        return _format_ranges(sorted(values))
    colors = [f"#{value:06x}" for value in sorted(values)]
    hidden = len(colors) - _MAX_LISTED_COLORS
    return ", ".join(colors[:_MAX_LISTED_COLORS]) + (f" and {hidden} more" if hidden > 0 else "")


def _format_ranges(ids: list[int]) -> str:
    ranges: list[list[int]] = []
    for i in ids:
        if ranges and i == ranges[-1][1] + 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in ranges)
