"""Renderers: from the predictions for a frame to ids, or to colors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.data.drawing import blend, colorize, draw_image_grid, draw_legend
from segkd.data.image_io import Array, Color, make_voc_color
from segkd.errors import UserError
from segkd.models.class_names import ClassCheck, explain_difference, find_class_difference
from segkd.models.student_io import read_student_metadata
from segkd.predict.pipeline import FramePrediction
from segkd.types import IGNORE_INDEX

OutputKind = Literal["class_ids", "label_ids", "color_masks", "overlay", "side_by_side"]
ID_OUTPUTS: tuple[OutputKind, ...] = ("class_ids", "label_ids")
"""Outputs that hold ids; a video, JPEG compression or a legend would change them."""

Renderer = Callable[[FramePrediction], Array]
"""Predictions for a frame → ids H W, or RGB H W 3."""

STUDENT = "student"
"""Name of the network that single-network outputs show."""


class Palette(NamedTuple):
    """The classes of a network, with their colors."""

    dataset: str
    classes: dict[str, Color]

    @classmethod
    def from_dataset(cls, dataset: SegmentationDataset) -> Palette:
        """Return the classes of a dataset."""
        return cls(dataset.display_name, dict(zip(dataset.classes, dataset.colors, strict=True)))

    @classmethod
    def from_run(cls, run: Path) -> Palette:
        """Return the classes that `student.yaml` names, in its colors or, without any, in VOC's.

        Raises:
            UserError: the file is missing or names none.
        """
        metadata = read_student_metadata(run)
        classes = metadata.get("classes")
        if not classes:
            raise UserError(f"{run / 'student.yaml'} names no classes; copy it again from the run")
        colors = metadata.get("colors", [make_voc_color(i + 1) for i in range(len(classes))])
        try:
            named = {name: (int(r), int(g), int(b)) for name, (r, g, b) in zip(classes, colors, strict=True)}
        except (TypeError, ValueError):
            raise UserError(
                f"{run / 'student.yaml'} has no color [R, G, B] for each class; copy it again from the run"
            ) from None
        return cls(str(metadata.get("dataset")), named)

    @classmethod
    def from_runs(cls, runs: Sequence[Path], check: ClassCheck = "names") -> Palette:
        """Return the classes that all runs share, in the colors of the first.

        Raises:
            UserError: the runs have different classes.
        """
        first, *others = (cls.from_run(run) for run in runs)
        for run, other in zip(runs[1:], others, strict=True):
            names = [*first.classes], [*other.classes]
            if find_class_difference(*names, check) is not None:
                cure = "give runs with the same classes in the same order"
                raise UserError(explain_difference(*names, str(runs[0]), str(run), cure))
        return first


def make_renderer(output: OutputKind, palette: Palette, opacity: float, legend: Mapping[str, Color]) -> Renderer:
    """Return the renderer of an output.

    Args:
        output: the kind of output.
        palette: classes and colors.
        opacity: of the colors in `overlay`.
        legend: classes that are listed below the image; may be empty.

    Raises:
        UserError: `label_ids` of classes other than Cityscapes'.
    """
    colors = [*palette.classes.values()]

    def colorize_student(prediction: FramePrediction) -> Array:
        return colorize(prediction.labels[STUDENT], colors)

    def draw_side_by_side(prediction: FramePrediction) -> Array:
        columns = {name: [colorize(labels, colors)] for name, labels in prediction.labels.items()}
        return np.asarray(draw_image_grid({"image": [prediction.frame.image], **columns}, legend, scale=1))

    def append_legend(image: Array) -> Array:
        return np.concatenate([image, np.asarray(draw_legend(legend, image.shape[1]))]) if legend else image

    match output:
        case "class_ids":
            return lambda prediction: prediction.labels[STUDENT]
        case "label_ids":
            table = make_label_id_table(palette)
            return lambda prediction: table[prediction.labels[STUDENT]]
        case "color_masks":
            return lambda prediction: append_legend(colorize_student(prediction))
        case "overlay":
            return lambda prediction: append_legend(
                blend(prediction.frame.image, colorize_student(prediction), opacity)
            )
        case "side_by_side":
            return draw_side_by_side


def make_label_id_table(palette: Palette) -> Array:
    """Return Cityscapes' label id of each class, which its server and scripts expect.

    Raises:
        UserError: the classes are not Cityscapes'.
    """
    if tuple(palette.classes) != Cityscapes.classes:
        raise UserError(
            f"label_ids are for the classes of Cityscapes, and this student has those of {palette.dataset}; use class_ids"
        )
    ids = {index: label_id for label_id, index in Cityscapes.label_map.items() if index != IGNORE_INDEX}
    return np.array([ids[index] for index in range(len(ids))], np.uint8)
