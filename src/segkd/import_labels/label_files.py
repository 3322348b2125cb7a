"""Read label files, whose values mean classes, as label maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segkd.data.image_io import Array, Color, LabelEncoding, read_bytes
from segkd.data.label_io import decode_label
from segkd.data.label_samples import read_stored_label
from segkd.data.label_values import format_values
from segkd.data.palettes import check_palette
from segkd.errors import UserError


class ValueMap(NamedTuple):
    """What the values of label files mean."""

    meanings: Mapping[LabelEncoding, Mapping[int, int]]
    """Encoding → value → index of a class, `IGNORED` or `UNLABELED`.

    With several encodings, files that have colors are read as colors, and those of one channel as ids.
    """
    source: str
    """What defines them, for error messages."""
    palette: Mapping[int, Color] = {}
    """The colors that palette indices must have in all files."""


def read_label_file(path: Path, values: ValueMap) -> Array:
    """Return the label map of a file, H W.

    Raises:
        UserError: The file is damaged, or holds other values.
    """
    content = read_bytes(path)
    encoding = next(iter(values.meanings))
    if len(values.meanings) > 1:
        stored = read_stored_label(content, path)
        encoding = "colors" if stored.palette or stored.samples.ndim > 2 else "ids"
    label = decode_label(content, path, encoding)
    check_palette(label, path, values.palette, values.source)
    table = values.meanings[encoding]
    present, positions = np.unique(label.values, return_inverse=True)
    if unknown := [value for value in present.tolist() if value not in table]:
        kind = "colors" if encoding == "colors" else "ids"
        raise UserError(
            f"{path} holds the {kind} {format_values(unknown, encoding)}, which {values.source} does not name; add them "
            "there, or remove them from the file"
        )
    meanings = np.array([table[value] for value in present.tolist()], np.uint8)
    return meanings[positions].reshape(label.values.shape)
