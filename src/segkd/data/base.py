"""The dataset contract: metadata, the files of each split, and samples as plain arrays."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np

from segkd.data.discovery import FoundImages, describe_left_out
from segkd.data.image_io import (
    LABEL_ENCODINGS,
    Array,
    Color,
    LabelArray,
    LabelEncoding,
    read_bytes,
    read_image,
)
from segkd.data.label_io import decode_label
from segkd.data.label_names import find_lossy_labels, find_missing_labels, find_same_names
from segkd.data.label_values import explain_unknown_values, format_values
from segkd.data.palettes import check_palette, collect_used_colors
from segkd.errors import UserError
from segkd.utils.threads import thread_map

log = logging.getLogger(__name__)

_UNKNOWN = 254  # marks, in the lookup table, a label value that the dataset does not define
_READERS = 8  # threads that open files
_TAIL_BYTES = 64  # at the end of a PNG, which has the checksum of all pixels there


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

    def list_contents(self) -> Iterable[str] | None:
        """Return lines that are equal for equal splits and differ for others; None if they are unknown."""
        return (self.get_name(i) for i in range(len(self)))

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
    given_colors: Sequence[Color | None] = ()
    """The colors that the user gave for the classes; None where a class has a default."""
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
        module = cls.__module__
        name = f"dataset={module.rpartition('.')[2]}" if module.startswith("segkd.data.") else cls.__name__
        if root is None:
            raise UserError(f"{name} needs dataset.root=DIR; {cls.download_hint}")
        if not Path(root).is_dir():
            raise UserError(f"there is no folder {root} for {name}; {cls.download_hint}")
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

    def find_images(self, split: str) -> FoundImages:  # noqa: ARG002
        """Return the images in the folder of a split, and what is left out; nothing if the split is a list of names."""
        return FoundImages([], [], [], [])

    @property
    def misnamed_labels(self) -> Mapping[Path, Path]:
        """Image whose label is missing → a file that may be its label."""
        return {}

    def describe_left_out(self) -> list[str]:
        """Return a sentence for each kind of image that lies in the folder of the split and is left out."""
        parts = self.combined_splits.get(self.split, (self.split,))
        sentences = [sentence for part in parts for sentence in describe_left_out(self.find_images(part))]
        return list(dict.fromkeys(sentences))

    def list_contents(self) -> Iterable[str]:
        """Return the path below the root, the size and the last bytes of each image and label."""
        paths = [path for pair in self.files for path in pair]
        return thread_map(partial(_describe_file, self.root), paths, _READERS, "")

    def list_source_files(self) -> list[Path]:
        """Return every file that the split depends on."""
        return [path for pair in self.files for path in pair]

    def check_complete(self) -> None:
        """Check that the split has images, each with a label of its own, and log what is left out.

        Raises:
            UserError: There is no image, a label is missing, or two images share a label.
        """
        left_out = self.describe_left_out()
        if not self.files:
            reason = f" ({left_out[0]})" if left_out else ""
            raise UserError(f"found no images of {self.title}{reason}; {self.download_hint}")
        for problem in (
            *find_missing_labels(self.title, self.files, self.misnamed_labels),
            *find_same_names(self.files).values(),
        ):
            raise UserError(problem)
        for sentence in (*left_out, *find_lossy_labels(self.files)):
            log.warning("%s", sentence)

    @property
    def title(self) -> str:
        """Name, split and folder, for messages."""
        return f"{self.display_name} {self.split} in {self.root}"

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
        label = decode_label(read_bytes(path), path, self.label_encoding)
        if label.palette:
            check_palette(label, path, *self._expected_palette)
        return label.values

    @cached_property
    def _expected_palette(self) -> tuple[dict[int, Color], str]:
        """Colors of palette indices, those given or else those in the first label, and where they are from."""
        if given := self.get_given_palette():
            return given, "classes.yaml"
        path = self.files[0][1]
        return collect_used_colors(decode_label(read_bytes(path), path, self.label_encoding)), str(path)

    def get_given_palette(self) -> dict[int, Color]:
        """Return palette index → color of the classes whose colors were given."""
        colors = {i: color for i, color in enumerate(self.given_colors) if color is not None}
        return {value: colors[index] for value, index in self.label_map.items() if index in colors}

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
            unknown = sorted(set(np.unique(label).tolist()) - self.label_map.keys())
            reason = explain_unknown_values(unknown, self.label_map, self.label_encoding, self.display_name)
            raise UserError(f"label {path} {reason}")
        return classes

    @cached_property
    def _lookup_table(self) -> Array:
        table = np.full(LABEL_ENCODINGS[self.label_encoding], _UNKNOWN, np.uint8)
        for value, index in self.label_map.items():
            table[value] = index
        return table

    def format_values(self, values: Iterable[int]) -> str:
        """Return [0, 1, 2, 5] as '0–2, 5', or colors in hexadecimal."""
        return format_values(values, self.label_encoding)


def _describe_file(root: Path, path: Path) -> str:
    name, size = os.path.relpath(path, root).replace(os.sep, "/"), path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        return f"{name} {size} {file.read().hex()}"
