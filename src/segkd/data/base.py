"""The contract of a data set: its facts, its files by split, its samples as plain arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np

from segkd.data.image_io import (
    LABEL_ENCODINGS,
    Array,
    LabelArray,
    LabelEncoding,
    decode_image,
    decode_label,
    read_bytes,
)
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_UNKNOWN = 254  # marks, in the table of codes, one that the data set does not have
_NAMED = 8  # at most, of colours in a sentence


class Sample(NamedTuple):
    """An image with its label, as they lie in the data set."""

    image: Array
    """H W 3, RGB."""
    label: Array
    """H W, classes or IGNORE_INDEX."""


class SegmentationDataset(ABC):
    """Images whose pixels have classes, and the facts about them: the class's, or, where a file tells them, the object's.

    Args:
        split: one of `splits`.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    """RGB, one per class."""
    ids: dict[int, int]
    """Code in a label file → class or IGNORE_INDEX; any other is a fault of the file."""
    mean: tuple[float, float, float]
    """RGB, 0..255, over all pixels of the training split."""
    std: tuple[float, float, float]
    splits: tuple[str, ...]
    combined_splits: Mapping[str, tuple[str, ...]] = {}
    """Those of the splits that are others in one."""
    size: tuple[int, int]
    """Height and width of its images; the commonest where they differ."""

    def __init__(self, split: str) -> None:
        self.split = split
        if split not in self.splits:
            raise UserError(f"{self.display_name()} has no split '{split}'; it has {', '.join(self.splits)}")

    def display_name(self) -> str:
        """The name to print."""
        return type(self).__name__

    @abstractmethod
    def __len__(self) -> int:
        """How many images it has."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """An image with its label."""

    def label(self, index: int) -> Array:
        """The label alone."""
        return self[index].label

    @abstractmethod
    def name(self, index: int) -> str:
        """What tells this image from the others, of other splits too."""

    def sequence(self, index: int) -> str:  # noqa: ARG002
        """The video that this image is a frame of; the images of one are in order."""
        return self.split


class FileDataset(SegmentationDataset):
    """A data set of image and label files.

    Subclasses implement `pairs` and `orphans`.

    Args:
        root: the folder of the data set.
        split: one of `splits`.
        complete: refuse a split that lacks files; only who looks for them does not.

    Raises:
        UserError: the folder or a split is missing, an image has no label, or, on access, a file is damaged.
    """

    download_hint: str
    """The end of a sentence: what the user can do to have the data."""
    coding: LabelEncoding = "ids"
    """What the label files hold."""

    def __init__(self, root: str | Path | None, split: str, complete: bool = True) -> None:
        super().__init__(split)
        self.root = self.there(root)
        self.files = [
            pair for part in self.combined_splits.get(split, (split,)) for pair in self.image_label_pairs(part)
        ]
        if complete:
            self.check_complete()

    @classmethod
    def there(cls, root: str | Path | None) -> Path:
        """The folder of the data set, which exists."""
        if root is None:
            raise UserError(f"{cls.__name__} needs dataset.root=DIR; {cls.download_hint}")
        if not Path(root).is_dir():
            raise UserError(f"no {cls.__name__} at {root}: there is no such folder; {cls.download_hint}")
        return Path(root)

    @abstractmethod
    def image_label_pairs(self, part: str) -> list[tuple[Path, Path]]:
        """Images of a split, none of `together`, in a fixed order, each with the path where its label should be."""

    @abstractmethod
    def labels_without_image(self, part: str) -> list[Path]:
        """Label files of the split that have no image."""

    def source_files(self) -> list[Path]:
        """Every file on which the split depends."""
        return [path for pair in self.files for path in pair]

    def check_complete(self) -> None:
        """Raises UserError where there is no image, or one without a label."""
        what = f"{self.display_name()} {self.split} in {self.root}"
        if not self.files:
            raise UserError(f"found no images of {what}; {self.download_hint}")
        missing = [label for _, label in self.files if not label.is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self.files)} images of {what} have no label; the first that is missing is {missing[0]}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.files[index]
        image = cast("Array", cv2.cvtColor(decode_image(image_path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
        label = self.label(index)
        if image.shape[:2] != label.shape:
            raise UserError(
                f"{image_path} is {image.shape[0]}×{image.shape[1]} but its label {label_path} {label.shape[0]}×{label.shape[1]}; "
                "make them the same size"
            )
        return Sample(image, label)

    def label(self, index: int) -> Array:
        path = self.files[index][1]
        return self.to_classes(decode_label(read_bytes(path), path, self.coding), path)

    def name(self, index: int) -> str:
        return self.files[index][0].stem

    def to_classes(self, label: LabelArray, path: Path) -> Array:
        """The classes H W of a label file's codes H W.

        Raises:
            UserError: the data set does not have one of the codes.
        """
        mapped: Array = self._table[label]
        if (mapped == _UNKNOWN).any():
            strangers = set(np.unique(label).tolist()) - self.ids.keys()
            void = [code for code, meaning in self.ids.items() if meaning == IGNORE_INDEX]
            what = "colours" if self.coding == "colors" else "ids"
            raise UserError(
                f"label {path} holds the {what} {self._named(strangers)}; {self.display_name()} allows {self._named(self.ids)}. "
                f"Map unlabelled pixels to an ignored one ({self._named(void)})"
            )
        return mapped

    @cached_property
    def _table(self) -> Array:
        table = np.full(LABEL_ENCODINGS[self.coding], _UNKNOWN, np.uint8)
        for code, meaning in self.ids.items():
            table[code] = meaning
        return table

    def _named(self, those: Iterable[int]) -> str:
        """[0, 1, 2, 5] as '0–2, 5', or as colours."""
        if self.coding != "colors":
            return _ranges(sorted(those))
        colors = [f"#{code:06x}" for code in sorted(those)]
        return ", ".join(colors[:_NAMED]) + (f" and {len(colors) - _NAMED} more" if len(colors) > _NAMED else "")


def _ranges(ids: list[int]) -> str:
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)
