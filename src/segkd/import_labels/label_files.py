"""Read label files, whose values mean classes, as label maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segkd.data.image_io import Array, DamagedFileError, read_bytes
from segkd.data.label_io import Label, decode_label
from segkd.data.label_values import format_values
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED

__all__ = ["IGNORED", "ValueMap", "read_label_file"]


class ValueMap(NamedTuple):
    """What the values of label files mean: indices of classes, `IGNORED` or `UNLABELED`."""

    by_color: Mapping[int, int]
    """Of red · 2¹⁶ + green · 2⁸ + blue, in files of colors or with a palette."""
    by_id: Mapping[int, int]
    """Of the ids in files of one channel without a palette."""
    source: str
    """What defines them, for error messages."""


def read_label_file(path: Path, values: ValueMap) -> Array:
    """Return the label map of a file, H W.

    Raises:
        UserError: The file is damaged, or holds other values.
    """
    label, is_colored = _decode(path)
    table = values.by_color if is_colored else values.by_id
    present, positions = np.unique(label.values, return_inverse=True)
    if unknown := [value for value in present.tolist() if value not in table]:
        encoding = "colors" if is_colored else "ids"
        raise UserError(
            f"{path} holds the {encoding} {format_values(unknown, encoding)}, which {values.source} does not name; add them "
            "there, or remove them from the file"
        )
    meanings = np.array([table[value] for value in present.tolist()], np.uint8)
    return meanings[positions].reshape(label.values.shape)


def _decode(path: Path) -> tuple[Label, bool]:
    """Return a label as colors if it has any, else as ids."""
    content = read_bytes(path)
    try:
        label = decode_label(content, path, "palette")
    except DamagedFileError:
        raise
    except UserError:  # it has three channels
        label = None
    if label is None or label.palette:
        return decode_label(content, path, "colors"), True
    return label, False
