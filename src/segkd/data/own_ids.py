"""The ids with which a dataset stores its classes in label files."""

from __future__ import annotations

from typing import Any, NamedTuple

from segkd.data.base import SegmentationDataset
from segkd.types import IGNORE_INDEX

_MAX_ID = 255


class OwnIds(NamedTuple):
    """One id per class, and one for pixels without a class."""

    classes: tuple[int, ...]
    ignored: int | None
    """None if every id is a class."""


def find_own_ids(dataset: SegmentationDataset) -> OwnIds | None:
    """Return the ids of a dataset's label files; None if its labels are colors, or a class has no id."""
    # The class's own table if it has one: an instance of Cityscapes may read training ids.
    return find_ids_in_table(getattr(type(dataset), "label_map", dataset.label_map), len(dataset.classes))


def describe_ids(dataset: SegmentationDataset) -> dict[str, Any]:
    """Return the entries of `student.yaml` for the ids of a dataset: class → id, and the ignored id; None where there is none."""
    ids = find_own_ids(dataset)
    return {
        "ids": None if ids is None else dict(zip(dataset.classes, ids.classes, strict=True)),
        "ignore_id": None if ids is None else ids.ignored,
    }


def find_ids_in_table(label_map: dict[int, int], num_classes: int) -> OwnIds | None:
    """Return the ids in a `label_map`, of several the first; None if its values are colors, or a class has none."""
    first = {class_index: value for value, class_index in reversed(label_map.items())}
    indices = range(num_classes)
    if any(index not in first for index in indices) or max(label_map) > _MAX_ID:
        return None
    return OwnIds(tuple(first[index] for index in indices), first.get(IGNORE_INDEX))
