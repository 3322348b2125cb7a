"""The values of predicted label files: class indices, or the ids of the dataset's own label files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkd.builders.datasets import open_dataset
from segkd.config.schema import DatasetRoot
from segkd.data.base import SegmentationDataset
from segkd.data.image_io import Array
from segkd.data.own_ids import OwnIds, find_own_ids
from segkd.errors import UserError
from segkd.models.class_names import ClassCheck, explain_difference, find_class_difference
from segkd.predict.palette import Palette
from segkd.runs.load import read_config, resolve_dataset
from segkd.types import IGNORE_INDEX

log = logging.getLogger(__name__)

_CURE = "give dataset=NAME dataset.root=DIR, which has them"


class LabelValues(NamedTuple):
    """The value of each class, and that of pixels below the smallest confidence."""

    classes: tuple[int, ...]
    ignored: int

    def apply(self, labels: Array) -> Array:
        """Return the values of class indices, H W; the same array if they are equal."""
        if (*self.classes, self.ignored) == (*range(len(self.classes)), IGNORE_INDEX):
            return labels
        table = np.full(256, self.ignored, np.uint8)
        table[: len(self.classes)] = self.classes
        values: Array = table[labels]
        return values


def make_index_values(num_classes: int) -> LabelValues:
    """Return class indices, counted from 0."""
    return LabelValues((*range(num_classes),), IGNORE_INDEX)


def make_own_values(ids: OwnIds, dataset: str) -> LabelValues:
    """Return a dataset's own ids; where every id of it is a class, ignored pixels get a free value, which is logged."""
    if ids.ignored is not None:
        return LabelValues(ids.classes, ids.ignored)
    free = next(value for value in range(IGNORE_INDEX, -1, -1) if value not in ids.classes)
    log.warning("%s ignores no id; pixels without a class hold %d, a value that it does not define", dataset, free)
    return LabelValues(ids.classes, free)


def find_ids_of_files(
    metadata: Mapping[str, Any], file: Path, palette: Palette, run: Path | None, check: ClassCheck
) -> OwnIds:
    """Return the ids of the dataset that a student was trained on, from its yaml file or else from the dataset of its run.

    Args:
        metadata: content of the yaml file.
        file: where it is from, for the error.
        palette: the classes of the student.
        run: the folder whose `config.yaml` says where the dataset lies; None if there is none.
        check: what the classes of the student and the dataset must agree in.

    Raises:
        UserError: the dataset has no ids, or nothing says them.
    """
    if "ids" in metadata:
        return require_ids(_parse_ids(metadata, file), palette.dataset)
    if run is None:
        raise UserError(f"{file} does not hold the ids of its dataset; {_CURE}")
    try:
        spec = resolve_dataset(DatasetRoot(None), run)
        config = read_config(run, _CURE) or {}
        dataset = open_dataset(spec, (config.get("data") or {}).get("val_split", "val"))
    except (UserError, AttributeError) as error:
        raise UserError(f"{file} does not hold the ids of its dataset, as later versions write them: {error}") from None
    if find_class_difference([*palette.classes], dataset.classes, check) is not None:
        raise UserError(explain_difference([*palette.classes], dataset.classes, str(file), dataset.display_name, _CURE))
    return find_ids_of_dataset(dataset)


def find_ids_of_dataset(dataset: SegmentationDataset) -> OwnIds:
    """Return the ids of a dataset.

    Raises:
        UserError: its labels hold none.
    """
    return require_ids(find_own_ids(dataset), dataset.display_name)


def require_ids(ids: OwnIds | None, dataset: str) -> OwnIds:
    """Return the ids if there are any.

    Raises:
        UserError: there are none.
    """
    if ids is None:
        raise UserError(
            f"the labels of {dataset} have no id 0–255 for each class, as those in colors; give outputs=[color_masks], or leave ids out"
        )
    return ids


def _parse_ids(metadata: Mapping[str, Any], file: Path) -> OwnIds | None:
    ids, ignored = metadata["ids"], metadata.get("ignore_id")
    if ids is None:
        return None
    names, values = (list(ids), list(ids.values())) if isinstance(ids, Mapping) else ([], [])
    is_valid = [*map(str, names)] == [*map(str, metadata.get("classes") or ())] and len({*values}) == len(values)
    if not is_valid or not all(_is_id(value) for value in [*values, 0 if ignored is None else ignored]):
        raise UserError(f"{file} has no id 0–255 of its own for each class; copy it again from the run")
    return OwnIds(tuple(values), ignored)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255
