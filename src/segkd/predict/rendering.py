"""Renderers: from the predictions for a frame to ids, or to colors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from segkd.data.cityscapes import Cityscapes
from segkd.data.drawing import blend, colorize, draw_image_grid, draw_legend
from segkd.data.image_io import Array, Color
from segkd.data.own_ids import find_ids_in_table
from segkd.errors import UserError
from segkd.predict.label_values import LabelValues
from segkd.predict.palette import Palette
from segkd.predict.pipeline import FramePrediction
from segkd.types import IGNORE_INDEX

OutputKind = Literal["class_ids", "label_ids", "color_masks", "overlay", "side_by_side", "dataset"]
ID_OUTPUTS: tuple[OutputKind, ...] = ("class_ids", "label_ids")
"""Outputs that hold ids; a video, JPEG compression or a legend would change them."""

Renderer = Callable[[FramePrediction], Array]
"""Predictions for a frame → ids H W, or RGB H W 3."""

STUDENT = "student"
"""Name of the network that single-network outputs show."""

_TRANSPARENT: Color = (255, 255, 255)  # drawn by a legend as an empty box


def make_renderer(
    output: OutputKind,
    palette: Palette,
    opacity: float,
    legend: Mapping[str, Color],
    values: LabelValues,
    min_confidence: float | None = None,
) -> Renderer:
    """Return the renderer of an output.

    Args:
        output: the kind of output.
        palette: classes and colors.
        opacity: of the colors in `overlay`.
        legend: classes that are listed below the image; may be empty.
        values: what `class_ids` and `dataset` hold.
        min_confidence: below it, pixels have no class.

    Raises:
        UserError: `label_ids` of classes other than Cityscapes'.
    """
    colors = [*palette.classes.values()]

    def color(labels: Array) -> Array:
        return colorize(labels, colors, palette.unsure_color)

    def color_student(prediction: FramePrediction) -> Array:
        return color(prediction.labels[STUDENT])

    def draw_overlay(prediction: FramePrediction) -> Array:
        image, drawn = prediction.frame.image, color_student(prediction)
        if min_confidence is not None:
            is_unsure = prediction.labels[STUDENT] == IGNORE_INDEX
            drawn[is_unsure] = image[is_unsure]
        return blend(image, drawn, opacity)

    def draw_side_by_side(prediction: FramePrediction) -> Array:
        columns = {name: [color(labels)] for name, labels in prediction.labels.items()}
        named = extend_legend(legend, min_confidence, palette.unsure_color)
        return np.asarray(draw_image_grid({"image": [prediction.frame.image], **columns}, named, scale=1))

    def append_legend(image: Array, unsure: Color) -> Array:
        if not legend:
            return image
        named = extend_legend(legend, min_confidence, unsure)
        return np.concatenate([image, np.asarray(draw_legend(named, image.shape[1]))])

    match output:
        case "class_ids" | "dataset":
            return lambda prediction: values.apply(prediction.labels[STUDENT])
        case "label_ids":
            label_ids = make_label_ids(palette)
            return lambda prediction: label_ids.apply(prediction.labels[STUDENT])
        case "color_masks":
            return lambda prediction: append_legend(color_student(prediction), palette.unsure_color)
        case "overlay":
            return lambda prediction: append_legend(draw_overlay(prediction), _TRANSPARENT)
        case "side_by_side":
            return draw_side_by_side


def extend_legend(legend: Mapping[str, Color], min_confidence: float | None, unsure: Color) -> dict[str, Color]:
    """Return a legend with an entry for pixels below the smallest confidence, if there is one; an empty one stays empty."""
    if not legend or min_confidence is None:
        return dict(legend)
    return {**legend, f"below {min_confidence:g}": unsure}


def make_label_ids(palette: Palette) -> LabelValues:
    """Return Cityscapes' label id of each class, which its server and scripts expect.

    Raises:
        UserError: the classes are not Cityscapes'.
    """
    ids = find_ids_in_table(Cityscapes.label_map, len(Cityscapes.classes))
    if tuple(palette.classes) != Cityscapes.classes or ids is None or ids.ignored is None:
        raise UserError(
            f"label_ids are for the classes of Cityscapes, and this student has those of {palette.dataset}; "
            "use class_ids, with ids=own for the ids of its label files"
        )
    return LabelValues(ids.classes, ids.ignored)
