"""Open the splits of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from segkd.config.instantiate import SpecDict, build_spec, resolve_target
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.errors import UserError


def open_dataset(node: SpecDict, split: str) -> SegmentationDataset:
    """A split of the data set.

    Raises:
        UserError: the node is of something else, or the data set cannot be opened.
    """
    if not issubclass(kind := resolve_target(node), SegmentationDataset):
        raise UserError(f"{kind.__name__} is no data set; choose one with dataset=NAME")
    opened: SegmentationDataset = build_spec(node, split=split)
    return opened


def open_splits(node: SpecDict, names: Sequence[str] | None, complete: bool) -> dict[str, FileDataset]:
    """Splits of a data set of files: those named, or all that it has; of splits that are others in one, these.

    Args:
        complete: see `FileDataset`.

    Raises:
        UserError: the data set has no files, or not those of a split.
    """
    kind = resolve_target(node)
    if not issubclass(kind, FileDataset):
        raise UserError(f"{kind.__name__} has no image and label files; choose another data set with dataset=NAME")
    first: FileDataset = build_spec(node, split=names[0] if names else "train", complete=False)
    wanted = names or first.splits
    single = dict.fromkeys(part for name in wanted for part in first.combined_splits.get(name, (name,)))
    opened: dict[str, FileDataset] = {name: build_spec(node, split=name, complete=False) for name in single}
    if not names:
        opened = {name: part for name, part in opened.items() if part.files} or {first.split: first}
    for part in opened.values():
        if complete or not part.files:
            part.check_complete()
    return opened
