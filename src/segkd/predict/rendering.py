"""Ways to show what networks say of a frame: as ids, or as colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segkd.data.cityscapes import Cityscapes
from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.models.checkpoint_io import student_metadata
from segkd.predict.drawing import Color, blend, colorize, draw_legend, image_grid
from segkd.predict.pipeline import FramePrediction
from segkd.types import IGNORE_INDEX

OutputKind = Literal["labels", "city_ids", "colors", "overlay", "side_by_side"]
IDS: tuple[OutputKind, ...] = ("labels", "city_ids")
"""Numbers, which no film, JPEG or legend may touch."""

Renderer = Callable[[FramePrediction], Array]
"""Ids H W, or RGB H W 3, of a labelled frame."""


class Palette(NamedTuple):
    """What a student was trained to tell apart."""

    dataset: str
    classes: dict[str, Color]

    @classmethod
    def of_run(cls, run: Path) -> Palette:
        """As student.yaml has it.

        Raises:
            UserError: it is missing or does not say.
        """
        facts = student_metadata(run)
        classes, colors = facts.get("classes"), facts.get("colors")
        if not (isinstance(classes, list) and isinstance(colors, list) and len(classes) == len(colors)):
            raise UserError(f"{run / 'student.yaml'} names no classes with their colours; copy it again from the run")
        named = {str(name): (color[0], color[1], color[2]) for name, color in zip(classes, colors, strict=True)}
        return cls(str(facts.get("dataset")), named)


def make_renderer(view: OutputKind, palette: Palette, opacity: float, legends: Mapping[str, Color]) -> Renderer:
    """How a view shows a labelled frame, with a legend of `legends` beneath, if there are any.

    Args:
        opacity: of the colours in `overlay`.

    Raises:
        UserError: `to_label_ids` of a student of other classes.
    """
    colors = [*palette.classes.values()]

    def student(one: FramePrediction) -> Array:
        return colorize(one.labels["student"], colors)

    def side_by_side(one: FramePrediction) -> Array:
        said = {name: [colorize(labels, colors)] for name, labels in one.labels.items()}
        return np.asarray(image_grid({"image": [one.frame.image], **said}, legends, scale=1))

    def beneath(shown: Array) -> Array:
        return np.concatenate([shown, np.asarray(draw_legend(legends, shown.shape[1]))]) if legends else shown

    match view:
        case "labels":
            return lambda one: one.labels["student"]
        case "city_ids":
            table = to_label_ids(palette)
            return lambda one: table[one.labels["student"]]
        case "colors":
            return lambda one: beneath(student(one))
        case "overlay":
            return lambda one: beneath(blend(one.frame.image, student(one), opacity))
        case "side_by_side":
            return side_by_side


def to_label_ids(palette: Palette) -> Array:
    """By class, Cityscapes' own label id, which its server and scripts want.

    Raises:
        UserError: the classes are not Cityscapes'.
    """
    if tuple(palette.classes) != Cityscapes.classes:
        raise UserError(
            f"city_ids are the label ids of Cityscapes, and this student knows the classes of {palette.dataset}; take labels"
        )
    ids = {index: label_id for label_id, index in Cityscapes.ids.items() if index != IGNORE_INDEX}
    return np.array([ids[index] for index in range(len(ids))], np.uint8)
