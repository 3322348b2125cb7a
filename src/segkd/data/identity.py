"""What a split holds, as hashes: equal for equal data, wherever they lie and whatever their folder is called."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from segkd.data.base import SegmentationDataset
from segkd.types import IGNORE_INDEX

_LENGTH = 16  # hexadecimal digits; two of a million datasets are taken for one with a chance of 1e-8


def identify_data(dataset: SegmentationDataset) -> dict[str, Any]:
    """Return the numbers of `classes` and `images`, and hashes of the `class_table` and of the `contents`.

    The class table is the names and which label values belong to each; what is ignored besides them and the colors do
    not matter. The hash of the contents is None for a pack of an earlier version, which did not record them.
    """
    values = sorted((value, index) for value, index in dataset.label_map.items() if index != IGNORE_INDEX)
    contents = dataset.list_contents()
    return {
        "classes": len(dataset.classes),
        "class_table": _hash([dataset.classes, values]),
        "images": len(dataset),
        "contents": None if contents is None else _hash(list(contents)),
    }


def hash_names(dataset: SegmentationDataset) -> str:
    """Return a hash of the names of the images in their order."""
    return _hash([dataset.get_name(i) for i in range(len(dataset))])


def _hash(value: Any) -> str:
    # ASCII, because names of files may hold bytes that are no text.
    return hashlib.sha256(json.dumps(value).encode("ascii")).hexdigest()[:_LENGTH]
