"""Palettes of label files: an index means a class only if all files give it one color."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segkd.data.image_io import Color
from segkd.data.label_io import Label
from segkd.errors import UserError


def collect_used_colors(label: Label) -> dict[int, Color]:
    """Return palette index → color of the indices in a label; nothing for a label without a palette."""
    if not label.palette:
        return {}
    used = np.flatnonzero(np.bincount(label.values.ravel(), minlength=len(label.palette)))
    return {index: label.palette[index] for index in used.tolist() if index < len(label.palette)}


def check_palette(label: Label, path: Path, expected: Mapping[int, Color], source: str) -> None:
    """Check that the indices in a label have the expected colors.

    Args:
        label: The label; one without a palette passes.
        path: Its file, for the error message.
        expected: Palette index → color.
        source: Where the colors are from, for the error message.

    Raises:
        UserError: An index in the label has another color.
    """
    palette = label.palette
    differing = [index for index, color in expected.items() if index < len(palette) and palette[index] != color]
    used = collect_used_colors(label) if differing else {}
    for index in differing:
        if index in used:
            raise UserError(describe_other_color(path, index, used[index], expected[index], source))


def describe_other_color(path: Path, index: int, color: Color, expected: Color, source: str) -> str:
    """Return the sentence that a palette gives an index another color than it has in `source`."""
    given, right = (f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in (color, expected))
    return (
        f"label {path} has {given} at palette index {index}, and {source} has {right}; if the colors mean the classes, give "
        "`labels: colors` in classes.yaml, and if the indices do, save all labels with one palette"
    )
