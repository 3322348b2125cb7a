"""The classes of networks, with their colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segkd.data.base import SegmentationDataset
from segkd.data.image_io import Color, make_voc_color
from segkd.errors import UserError
from segkd.models.class_names import ClassCheck, explain_difference, find_class_difference
from segkd.models.student_io import read_student_metadata

_UNSURE_COLORS: tuple[Color, ...] = ((0, 0, 0), (255, 255, 255), (128, 128, 128))


class Palette(NamedTuple):
    """The classes of a network, with their colors."""

    dataset: str
    classes: dict[str, Color]

    @classmethod
    def from_dataset(cls, dataset: SegmentationDataset) -> Palette:
        """Return the classes of a dataset."""
        return cls(dataset.display_name, dict(zip(dataset.classes, dataset.colors, strict=True)))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], file: Path) -> Palette:
        """Return the classes that the description of a student names, in its colors or, without any, in VOC's.

        Args:
            metadata: content of `student.yaml`, or of a training checkpoint.
            file: where it is from, for the error.

        Raises:
            UserError: it names none.
        """
        classes = metadata.get("classes")
        if not classes:
            raise UserError(f"{file} names no classes; copy it again from the run")
        colors = metadata.get("colors", [make_voc_color(i + 1) for i in range(len(classes))])
        try:
            named = {name: (int(r), int(g), int(b)) for name, (r, g, b) in zip(classes, colors, strict=True)}
        except (TypeError, ValueError):
            raise UserError(f"{file} has no color [R, G, B] for each class; copy it again from the run") from None
        return cls(str(metadata.get("dataset", "data without a name")), named)

    @classmethod
    def from_run(cls, run: Path) -> Palette:
        """Return the classes that `student.yaml` names.

        Raises:
            UserError: the file is missing or names none.
        """
        return cls.from_metadata(read_student_metadata(run), run / "student.yaml")

    @classmethod
    def from_runs(cls, runs: Sequence[Path], check: ClassCheck = "names") -> Palette:
        """Return the classes that all runs share, in the colors of the first.

        Raises:
            UserError: the runs have different classes.
        """
        return share_classes({run: cls.from_run(run) for run in runs}, "runs", check)

    @property
    def unsure_color(self) -> Color:
        """Color of pixels below the smallest confidence: black, unless a class is black."""
        used = {*self.classes.values()}
        return next((color for color in _UNSURE_COLORS if color not in used), _UNSURE_COLORS[0])


def share_classes(palettes: Mapping[Path, Palette], kind: str, check: ClassCheck) -> Palette:
    """Return the first palette if all have its classes.

    Args:
        palettes: run or file → its classes.
        kind: what these are, in the plural, for the error.
        check: what must agree.

    Raises:
        UserError: the classes differ.
    """
    (first, palette), *others = palettes.items()
    for path, other in others:
        names = [*palette.classes], [*other.classes]
        if find_class_difference(*names, check) is not None:
            cure = f"give {kind} with the same classes in the same order"
            raise UserError(explain_difference(*names, str(first), str(path), cure))
    return palette
