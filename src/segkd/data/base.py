"""The dataset contract: metadata, the files of each split, and samples as plain arrays."""

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
    Color,
    LabelArray,
    LabelEncoding,
    decode_label,
    read_bytes,
    read_image,
)
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_UNKNOWN = 254  # marks, in the lookup table, a label value that the dataset does not define
_MAX_LISTED_COLORS = 8


class Sample(NamedTuple):
    """An image and its label, as stored in the dataset."""

    image: Array
    """H W 3, RGB."""
    label: Array
    """H W, class indices or IGNORE_INDEX."""


class SegmentationDataset(ABC):
    """Images with one class per pixel, and the metadata of their classes.

    Metadata are class attributes, or instance attributes where they are read from a file.

    Args:
        split: One of `splits`.

    Raises:
        UserError: The dataset has no such split.
    """

    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    """RGB, one per class."""
    label_map: dict[int, int]
    """Value in a label file → class index or IGNORE_INDEX. Any other value is an error in the file."""
    mean: tuple[float, float, float]
    """RGB, 0..255, over all pixels of the training split."""
    std: tuple[float, float, float]
    splits: tuple[str, ...]
    combined_splits: Mapping[str, tuple[str, ...]] = {}
    """Splits that are the union of others, with the names of these."""
    size: tuple[int, int]
    """Height and width of the images; the most common ones if they vary."""

    def __init__(self, split: str) -> None:
        self.split = split
        if split not in self.splits:
            raise UserError(f"{self.display_name} has no split '{split}'; it has {', '.join(self.splits)}")

    @property
    def display_name(self) -> str:
        """Name in messages and results."""
        return type(self).__name__

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Load an image and its label."""

    def load_label(self, index: int) -> Array:
        """Load the label alone, H W."""
        return self[index].label

    @abstractmethod
    def get_name(self, index: int) -> str:
        """Return a name that is unique across all splits."""

    def get_sequence(self, index: int) -> str:  # noqa: ARG002
        """Return the name of the video that the image belongs to; its frames have consecutive indices."""
        return self.split


class FileDataset(SegmentationDataset):
    """A dataset of image and label files.

    Subclasses implement `find_image_label_pairs` and `find_labels_without_image`.

    Args:
        root: Folder of the dataset.
        split: One of `splits`.
        complete: Raise an error if files of the split are missing. `segkd.check`, which looks for them, passes False.

    Raises:
        UserError: The folder or a split is missing, an image has no label, or, on access, a file is damaged.
    """

    download_hint: str
    """How to obtain the data; ends an error message."""
    label_encoding: LabelEncoding = "ids"
    """What the pixel values of label files mean."""

    def __init__(self, root: str | Path | None, split: str, complete: bool = True) -> None:
        super().__init__(split)
        self.root = self.resolve_root(root)
        parts = self.combined_splits.get(split, (split,))
        self.files = [pair for part in parts for pair in self.find_image_label_pairs(part)]
        if complete:
            self.check_complete()

    @classmethod
    def resolve_root(cls, root: str | Path | None) -> Path:
        """Return the folder of the dataset.

        Raises:
            UserError: No folder is given, or it does not exist.
        """
        if root is None:
            raise UserError(f"{cls.__name__} needs dataset.root=DIR; {cls.download_hint}")
        if not Path(root).is_dir():
            raise UserError(f"no {cls.__name__} at {root}: there is no such folder; {cls.download_hint}")
        return Path(root)

    @abstractmethod
    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Return the images of a split in a fixed order, each with the expected path of its label.

        Args:
            split: One of `splits`, but none of `combined_splits`.
        """

    @abstractmethod
    def find_labels_without_image(self, split: str) -> list[Path]:
        """Return the label files of a split that have no image."""

    def list_source_files(self) -> list[Path]:
        """Return every file that the split depends on."""
        return [path for pair in self.files for path in pair]

    def check_complete(self) -> None:
        """Check that the split has images, each with a label.

        Raises:
            UserError: There is no image, or a label is missing.
        """
        split = f"{self.display_name} {self.split} in {self.root}"
        if not self.files:
            raise UserError(f"found no images of {split}; {self.download_hint}")
        missing = [label for _, label in self.files if not label.is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self.files)} images of {split} have no label; the first missing label is {missing[0]}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.files[index]
        image = cast("Array", cv2.cvtColor(read_image(image_path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
        label = self.load_label(index)
        if image.shape[:2] != label.shape:
            raise UserError(
                f"{image_path} is {image.shape[0]}×{image.shape[1]} but its label {label_path} {label.shape[0]}×{label.shape[1]}; "
                "make them the same size"
            )
        return Sample(image, label)

    def load_label(self, index: int) -> Array:
        """Load the label alone, H W."""
        return self.to_classes(self.load_label_values(index), self.files[index][1])

    def load_label_values(self, index: int) -> LabelArray:
        """Load the values of a label file, H W."""
        path = self.files[index][1]
        return decode_label(read_bytes(path), path, self.label_encoding)

    def get_name(self, index: int) -> str:
        """Return the stem of the image file."""
        return self.files[index][0].stem

    def to_classes(self, label: LabelArray, path: Path) -> Array:
        """Map the values of a label file, H W, to class indices, H W.

        Args:
            label: As `decode_label` returns it.
            path: The file, for the error message.

        Raises:
            UserError: The dataset does not define one of the values.
        """
        classes: Array = self._lookup_table[label]
        if (classes == _UNKNOWN).any():
            unknown = set(np.unique(label).tolist()) - self.label_map.keys()
            ignored = [value for value, index in self.label_map.items() if index == IGNORE_INDEX]
            kind = "colors" if self.label_encoding == "colors" else "ids"
            raise UserError(
                f"label {path} holds the {kind} {self.format_values(unknown)}; {self.display_name} allows "
                f"{self.format_values(self.label_map)}. Map unlabeled pixels to an ignored one ({self.format_values(ignored)})"
            )
        return classes

    @cached_property
    def _lookup_table(self) -> Array:
        table = np.full(LABEL_ENCODINGS[self.label_encoding], _UNKNOWN, np.uint8)
        for value, index in self.label_map.items():
            table[value] = index
        return table

    def format_values(self, values: Iterable[int]) -> str:
        """Return [0, 1, 2, 5] as '0–2, 5', or colors in hexadecimal."""
        if self.label_encoding != "colors":
            return _format_ranges(sorted(values))
        colors = [f"#{value:06x}" for value in sorted(values)]
        hidden = len(colors) - _MAX_LISTED_COLORS
        return ", ".join(colors[:_MAX_LISTED_COLORS]) + (f" and {hidden} more" if hidden > 0 else "")


def _format_ranges(ids: list[int]) -> str:
    ranges: list[list[int]] = []
    for i in ids:
        if ranges and i == ranges[-1][1] + 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in ranges)
