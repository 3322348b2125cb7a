"""Open the splits of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from segkd.config.instantiate import Spec
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.errors import UserError


def open_dataset(spec: Spec, split: str) -> SegmentationDataset:
    """Return a split of a dataset.

    Raises:
        UserError: the spec is not of a dataset, or the dataset cannot be opened.
    """
    if not issubclass(spec.target, SegmentationDataset):
        raise UserError(f"{spec.target.__name__} is not a dataset; choose one with dataset=NAME")
    dataset: SegmentationDataset = spec.build(split=split)
    return dataset


def open_splits(spec: Spec, names: Sequence[str] | None, complete: bool) -> dict[str, FileDataset]:
    """Return splits of a file-based dataset: those named, or all that have files; a combined split as its parts.

    Args:
        spec: the dataset.
        names: splits; None for all.
        complete: see `FileDataset`.

    Raises:
        UserError: the dataset has no files, or a split has none.
    """
    if not issubclass(spec.target, FileDataset):
        raise UserError(
            f"{spec.target.__name__} has no image and label files, which this command reads; choose another dataset with "
            "dataset=NAME (`python -m segkd.check_part dataset=NAME` checks any)"
        )
    first: FileDataset = spec.build(split=names[0] if names else "train", complete=False)
    single = dict.fromkeys(part for name in names or first.splits for part in first.combined_splits.get(name, (name,)))
    splits: dict[str, FileDataset] = {name: spec.build(split=name, complete=False) for name in single}
    if not names:
        splits = {name: split for name, split in splits.items() if split.files} or {first.split: first}
    for split in splits.values():
        if complete or not split.files:
            split.check_complete()
    return splits
