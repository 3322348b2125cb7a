"""What the readers of all formats return: classes, images, and regions or masks in pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.data.image_io import Array, Color

IGNORED, UNLABELED = 255, 254
"""Values of an `AnnotatedImage.content` that is a label map, beside the indices of classes."""

Points = npt.NDArray[np.float64]
"""N 2: x and y in pixels; (0, 0) is the upper left corner of the upper left pixel, whose center is (0.5, 0.5)."""
Mask = npt.NDArray[np.bool_]
"""H W: whether a pixel belongs to a region."""


Outline = Literal["edges", "centers"]
"""What the points of outlines are: positions, or indices of pixels that belong to the object."""


class Polygon(NamedTuple):
    """The pixels that lie within an odd number of the rings: a second ring inside the first is a hole."""

    rings: tuple[Points, ...]
    """Closed lines; the last point is joined to the first."""
    is_relative: bool = False
    """Whether coordinates are parts of the image's width and height instead of pixels."""
    outline: Outline = "edges"


class Bitmap(NamedTuple):
    """Pixels of a mask, which may be smaller than the image."""

    read: Callable[[], Mask]
    """Returns the mask; called when the image is drawn, so that the masks of all images are never held at once."""
    top: int = 0
    left: int = 0


class Region(NamedTuple):
    """One annotated object."""

    class_name: str | None
    """None: its pixels are ignored."""
    parts: tuple[Polygon | Bitmap, ...]
    """A pixel in any of them belongs to the region."""


class AnnotatedImage(NamedTuple):
    """An image and what is annotated in it."""

    path: Path
    """The file, which exists."""
    name: str
    """Path in the output, below the folder of the split: with `/`, without suffix."""
    content: tuple[Region, ...] | Callable[[], Array]
    """Regions, or a function that reads a label map: H W, indices into `Export.classes`, `IGNORED` or `UNLABELED`."""
    size: tuple[int, int] | None = None
    """Height and width that the export gives the image; None where it says nothing."""
    split: str | None = None
    """The export's own split, as it names it; None if it has none."""


class LabelClass(NamedTuple):
    """A class, with the color of the export if it has one."""

    name: str
    color: Color | None = None


class Export(NamedTuple):
    """What a tool exported."""

    classes: Sequence[LabelClass]
    images: Sequence[AnnotatedImage]
    background: str | None = None
    """The class of pixels under no region, if the export names one."""
    is_ordered: bool = False
    """Whether later regions lie on earlier ones; otherwise smaller ones lie on larger ones."""
    is_complete: bool = False
    """Whether each pixel has a class or is ignored, so that none needs a background."""


class ReadSettings(NamedTuple):
    """Settings of all readers."""

    boxes: Literal["skip", "fill"] = "skip"
    """What becomes of objects that have a box and no outline."""
    crowd: Literal["ignore", "fill", "skip"] = "ignore"
    """What becomes of regions that hold a group of objects."""
    outlines: Outline | None = None
    """What the points of outlines are, where the format leaves it open; None: as they look, or positions."""
    image_folder: Path | None = None
    """Where the images are if not in the export."""
    scratch_folder: Path | None = None
    """Where readers may write images that annotations embed."""


class Notes:
    """What an import leaves out or changes: one line a kind, with the number and the first example."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a case.

        Args:
            kind: A plural and what happens to it: 'keypoints are left out'.
            example: Where it is: 'annotation 17 of images/a.jpg'.
            count: Number of cases.
        """
        self._counts[kind] = self._counts.get(kind, 0) + count
        self._examples.setdefault(kind, example)

    def merge(self, other: Notes) -> None:
        """Add all cases of other notes."""
        for kind, count in other._counts.items():
            self.add(kind, other._examples[kind], count)

    def list_lines(self) -> list[str]:
        """Return a line for each kind, in the order in which they were met."""
        return [f"{kind}: {count}, the first is {self._examples[kind]}" for kind, count in self._counts.items()]
