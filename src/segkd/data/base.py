"""The contract of a data set: its facts as class attributes, its files by split, its samples as plain arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

Array = npt.NDArray[np.uint8]

_UNKNOWN = 254  # marks, in the table of ids, an id that the data set does not have


class Sample(NamedTuple):
    """An image with its label, as they lie in the data set."""

    image: Array
    """H W 3, RGB."""
    label: Array
    """H W, classes or IGNORE_INDEX."""


class SegmentationDataset(ABC):
    """Images whose pixels have classes.

    Args:
        root: the folder of the data set.
        split: one of `splits`.
    """

    classes: ClassVar[tuple[str, ...]]
    colors: ClassVar[tuple[tuple[int, int, int], ...]]
    """RGB, one per class."""
    ids: ClassVar[dict[int, int]]
    """Label id on disk → class or IGNORE_INDEX; any other id is a fault of the file."""
    mean: ClassVar[tuple[float, float, float]]
    """RGB, 0..255, over all pixels of the training split."""
    std: ClassVar[tuple[float, float, float]]
    splits: ClassVar[tuple[str, ...]]
    size: ClassVar[tuple[int, int]]
    """Height and width of its images."""

    def __init__(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{self.title()} has no split '{split}'; it has {', '.join(self.splits)}")
        self.split = split

    @classmethod
    def title(cls) -> str:
        """The name to print."""
        return cls.__name__

    @abstractmethod
    def __len__(self) -> int:
        """How many images it has."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """An image with its label."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What tells this image from the others."""


class FileDataset(SegmentationDataset):
    """A data set of image and label files.

    Subclasses implement `pairs`.

    Raises:
        UserError: the folder or a split is missing, an image has no label, or, on access, a file is damaged.
    """

    how_to_get: ClassVar[str]
    """The end of a sentence: what the user can do to have the data."""

    def __init__(self, root: str | Path | None, split: str) -> None:
        super().__init__(split)
        if root is None:
            raise UserError(f"{self.title()} needs dataset.root=DIR; {self.how_to_get}")
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"no {self.title()} at {self.root}: there is no such folder; {self.how_to_get}")
        self.files = self.pairs()

    @abstractmethod
    def pairs(self) -> list[tuple[Path, Path]]:
        """Image and label of each sample, in a fixed order."""

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.files[index]
        image = decode(image_path, cv2.IMREAD_COLOR)[..., ::-1]
        label = self._to_classes(decode(label_path, cv2.IMREAD_UNCHANGED), label_path)
        if image.shape[:2] != label.shape:
            raise UserError(
                f"{image_path} is {image.shape[0]}×{image.shape[1]} but its label {label_path} {label.shape[0]}×{label.shape[1]}; "
                "make them the same size"
            )
        return Sample(image, label)

    def name(self, index: int) -> str:
        return self.files[index][0].stem

    def _to_classes(self, label: Array, path: Path) -> Array:
        if label.ndim != 2 or label.dtype != np.uint8:
            raise UserError(
                f"label {path} is not one 8-bit channel of ids but {label.shape} {label.dtype}; convert it to ids"
            )
        table = np.full(256, _UNKNOWN, np.uint8)
        for label_id, class_index in self.ids.items():
            table[label_id] = class_index
        mapped: Array = table[label]
        if (mapped == _UNKNOWN).any():
            strangers = sorted(set(np.unique(label).tolist()) - self.ids.keys())
            raise UserError(
                f"label {path} holds the ids {', '.join(map(str, strangers))}; {self.title()} allows {_ranges(sorted(self.ids))}. "
                f"Map unlabelled pixels to an ignored id ({_ranges(sorted(i for i, c in self.ids.items() if c == IGNORE_INDEX))})"
            )
        return mapped


def matched(images: list[Path], labels: list[Path], what: str, how_to_get: str) -> list[tuple[Path, Path]]:
    """Images with their labels, which must all be there.

    Raises:
        UserError: there is no image, or an image has no label; names the first and counts the rest.
    """
    if not images:
        raise UserError(f"found no images of {what}; {how_to_get}")
    missing = [label for label in labels if not label.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(images)} images of {what} have no label; the first that is missing is {missing[0]}"
        )
    return list(zip(images, labels, strict=True))


def decode(path: Path, flags: int) -> Array:
    """The pixels of an image file, as OpenCV orders them.

    Raises:
        UserError: it cannot be read, or is no whole image.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); restore the file") from None
    decoded = cv2.imdecode(content, flags) if len(content) else None
    if decoded is None:
        raise UserError(f"{path} is no whole image ({len(content)} bytes); fetch or copy it again")
    return cast("Array", decoded)  # whoever reads a label refuses another depth


def _ranges(ids: list[int]) -> str:
    """[0, 1, 2, 5] as '0–2, 5'."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)
