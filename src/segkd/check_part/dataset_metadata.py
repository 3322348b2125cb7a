"""Lines of a dataset's contract about what it declares: its splits, classes, colors, ids and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from segkd.check_part.findings import ContractFault, require
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_UNKNOWN_SPLIT = "no_such_split"


@dataclass(frozen=True)
class DatasetCase:
    """A dataset to be checked."""

    open_split: Callable[..., SegmentationDataset]
    """Opens a split, `split=NAME`."""
    train: SegmentationDataset

    def open_all(self) -> Iterator[SegmentationDataset]:
        """Yield the splits that can be opened: train and val in any case, the others where their files exist."""
        for name in self.train.splits:
            if name in self.train.combined_splits:
                continue
            try:
                yield self.open_split(split=name)
            except UserError:
                if name in ("train", "val"):
                    raise


def check_splits(case: DatasetCase) -> None:
    """There are `train` and `val`, each with images, and combined splits are made of others."""
    splits = case.train.splits
    if missing := [name for name in ("train", "val") if name not in splits]:
        raise ContractFault(
            f"splits has no {' and no '.join(missing)}; name the folders or lists so, in splits=('train', 'val', …)"
        )
    require(len(set(splits)) == len(splits), f"splits names {_find_twice(splits)} twice")
    for name, parts in case.train.combined_splits.items():
        if unknown := {name, *parts} - set(splits):
            raise ContractFault(f"combined_splits names {', '.join(sorted(unknown))}, which splits lacks")
    for dataset in case.open_all():
        require(len(dataset) > 0, f"split '{dataset.split}' has no images; raise a UserError if its files are missing")


def check_classes(case: DatasetCase) -> None:
    """Two classes or more, each of its own name."""
    classes = case.train.classes
    require(not isinstance(classes, str), f"classes is the text '{classes}'; give a tuple of names")
    require(len(classes) > 1, f"there is {len(classes)} class; give two or more")
    require(all(isinstance(name, str) for name in classes), "the names of classes must be strings")
    require(len(set(classes)) == len(classes), f"two classes are called '{_find_twice(classes)}'")


def check_colors(case: DatasetCase) -> None:
    """A color for each class, all different, 0..255."""
    colors, count = case.train.colors, len(case.train.classes)
    require(len(colors) == count, f"there are {len(colors)} colors for {count} classes")
    for color in colors:
        is_rgb = len(color) == 3 and all(isinstance(channel, int) and 0 <= channel <= 255 for channel in color)
        require(is_rgb, f"the color {color} is not three integers of 0..255")
    require(len(set(map(tuple, colors))) == count, f"two classes have the color {_find_twice([*map(tuple, colors)])}")


def check_label_map(case: DatasetCase) -> None:
    """Each class has an id in label files, and so has void, even if no file holds it."""
    label_map, count = case.train.label_map, len(case.train.classes)
    # Ids of labels that are stored as colors are integers of 24 bits.
    limit = 255 if getattr(case.train, "label_encoding", "ids") != "colors" else 2**24 - 1
    if wrong := [value for value in label_map if not (isinstance(value, int) and 0 <= value <= limit)]:
        raise ContractFault(f"label_map has the value {wrong[0]!r}; values in label files are integers of 0..{limit}")
    if missing := [name for i, name in enumerate(case.train.classes) if i not in label_map.values()]:
        raise ContractFault(f"label_map leads no value to the class {', '.join(missing)}")
    if unknown := sorted(set(label_map.values()) - {*range(count), IGNORE_INDEX}):
        raise ContractFault(f"label_map leads to class {unknown[0]}, and the {count} classes are 0..{count - 1}")
    has_void = IGNORE_INDEX in label_map.values()
    require(has_void, f"label_map leads no value to void; add one that files do not hold, such as 255: {IGNORE_INDEX}")


def check_statistics(case: DatasetCase) -> None:
    """Mean and standard deviation of three channels, in 0..255."""
    for name in ("mean", "std"):
        values = getattr(case.train, name)
        numbers = ", ".join(f"{value:g}" for value in values)
        require(len(values) == 3, f"{name} has {len(values)} values; give three, in the order RGB")
        require(
            max(values) > 1, f"{name} is ({numbers}), as of images in 0..1; images are in 0..255, so multiply by 255"
        )
        require(all(0 < value < 255 for value in values), f"{name} is ({numbers}); each value is between 0 and 255")


def check_size(case: DatasetCase) -> None:
    """Height and width of the images, in this order."""
    size = tuple(case.train.size)
    require(len(size) == 2 and min(size) > 0, f"size is {size}; give height and width in pixels")
    shapes = {case.train[i].image.shape[:2] for i in range(min(3, len(case.train)))}
    swapped = size[0] != size[1] and shapes == {size[::-1]}
    require(
        not swapped, f"size is {size}, and the first images are {size[1]} high and {size[0]} wide; give [height, width]"
    )


def check_unknown_split(case: DatasetCase) -> None:
    """A split that does not exist is refused with the names of those that do."""
    try:
        case.open_split(split=_UNKNOWN_SPLIT)
    except UserError as error:
        named = "train" in str(error)
        require(named, f"a split that does not exist is refused without the names of those that do: {error}")
        return
    raise ContractFault("a split that does not exist is opened; call super().__init__ with the split, which refuses it")


def _find_twice(values: tuple[object, ...] | list[tuple[int, ...]]) -> object:
    """Return the value that occurs most often."""
    return Counter(values).most_common(1)[0][0]
