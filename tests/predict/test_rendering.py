"""Renderers against values worked by hand, and legends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkd.data.cityscapes import Cityscapes
from segkd.data.drawing import blend, draw_image_grid, draw_legend
from segkd.errors import UserError
from segkd.predict.label_values import LabelValues, make_index_values
from segkd.predict.palette import Palette
from segkd.predict.pipeline import FramePrediction
from segkd.predict.rendering import extend_legend, make_label_ids, make_renderer
from segkd.predict.sources import Frame

TWO_CLASSES = Palette("Two", {"sky": (10, 20, 30), "road": (200, 100, 0)})
INDICES = make_index_values(2)
LABELS = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)
PREDICTION = FramePrediction(Frame("a", IMAGE), {"student": LABELS, "teacher": 1 - LABELS})


def test_class_ids_and_color_masks() -> None:
    assert np.array_equal(make_renderer("class_ids", TWO_CLASSES, 0.5, {}, INDICES)(PREDICTION), LABELS)
    colors = make_renderer("color_masks", TWO_CLASSES, 0.5, {}, INDICES)(PREDICTION)
    assert colors.tolist()[0] == [[10, 20, 30], [200, 100, 0], [200, 100, 0]]


def test_overlay_blends_by_opacity() -> None:
    assert make_renderer("overlay", TWO_CLASSES, 0.25, {}, INDICES)(PREDICTION).tolist()[0][0] == [78, 80, 82]
    assert np.array_equal(blend(IMAGE, 255 - IMAGE, 0.0), IMAGE)
    assert np.array_equal(blend(IMAGE, 255 - IMAGE, 1.0), 255 - IMAGE)


def test_legend_is_appended_below_the_unchanged_image() -> None:
    plain, extended = (
        make_renderer("color_masks", TWO_CLASSES, 0.5, classes, INDICES)(PREDICTION)
        for classes in ({}, TWO_CLASSES.classes)
    )
    assert np.array_equal(extended[:2], plain)
    assert extended.shape[1] == 3
    assert extended.shape[0] > 2


def test_side_by_side_shows_image_student_and_teacher() -> None:
    sheet = make_renderer("side_by_side", TWO_CLASSES, 0.5, {}, INDICES)(PREDICTION)
    expected = np.asarray(
        draw_image_grid({"image": [IMAGE], "student": [np.zeros_like(IMAGE)], "teacher": [IMAGE]}, {}, scale=1)
    )
    assert sheet.shape == expected.shape
    positions = [np.argwhere((sheet == color).all(2)) for color in ((100, 100, 100), (10, 20, 30), (200, 100, 0))]
    assert [len(pixels) for pixels in positions] == [6, 2 + 4, 4 + 2]
    student, teacher = sheet[-8:-6, 15:18], sheet[-8:-6, 24:27]
    assert student[0, 0].tolist() == [10, 20, 30]
    assert teacher[0, 0].tolist() == [200, 100, 0]


def test_label_ids_are_those_of_label_files() -> None:
    palette = Palette("Cityscapes", dict(zip(Cityscapes.classes, Cityscapes.colors, strict=True)))
    table = make_label_ids(palette).classes
    assert [*table] == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert [Cityscapes.label_map[label_id] for label_id in table] == [*range(19)]
    label_ids = make_renderer("label_ids", palette, 0.5, {}, INDICES)(PREDICTION)
    assert label_ids.tolist() == [[7, 8, 8], [8, 8, 7]]
    with pytest.raises(UserError, match="this student has those of Two; use class_ids"):
        make_label_ids(TWO_CLASSES)


@pytest.mark.parametrize("width", [150, 400, 2000])
def test_legend_shows_every_class_at_any_width(width: int) -> None:
    classes = {name: (7 * i, 255 - 9 * i, 40) for i, name in enumerate(Cityscapes.classes)}
    sheet = np.asarray(draw_legend(classes, width))
    assert sheet.shape[1] == width
    for color in classes.values():
        assert (sheet == color).all(2).sum() == 15 * 15
    assert (sheet[:, -3:] == 255).all()  # no name is truncated


def test_student_without_class_names_is_refused(tmp_path: Path, teacher_file: Path) -> None:
    with pytest.raises(UserError, match=r"student.yaml names no classes; copy it again"):
        Palette.from_run(teacher_file.parent)


UNSURE = FramePrediction(Frame("a", IMAGE), {"student": np.array([[0, 255, 1], [1, 1, 0]], np.uint8)})


def test_uncertain_pixels_are_ignored_ids_black_or_transparent() -> None:
    ids = make_renderer("class_ids", TWO_CLASSES, 0.5, {}, LabelValues((7, 20), 3), 0.9)(UNSURE)
    assert ids.tolist() == [[7, 3, 20], [20, 20, 7]]
    assert make_renderer("class_ids", TWO_CLASSES, 0.5, {}, INDICES, 0.9)(UNSURE)[0].tolist() == [0, 255, 1]
    masks = make_renderer("color_masks", TWO_CLASSES, 0.5, {}, INDICES, 0.9)(UNSURE)
    assert masks[0].tolist() == [[10, 20, 30], [0, 0, 0], [200, 100, 0]]
    overlay = make_renderer("overlay", TWO_CLASSES, 1.0, {}, INDICES, 0.9)(UNSURE)
    assert overlay[0].tolist() == [[10, 20, 30], [100, 100, 100], [200, 100, 0]]
    sheet = make_renderer("side_by_side", TWO_CLASSES, 1.0, {}, INDICES, 0.9)(UNSURE)
    assert (sheet == (0, 0, 0)).all(2).sum() == 1


def test_uncertain_pixels_are_never_in_the_color_of_a_class() -> None:
    assert TWO_CLASSES.unsure_color == (0, 0, 0)
    assert Palette("VOC", {"background": (0, 0, 0), "cat": (255, 255, 255)}).unsure_color == (128, 128, 128)


def test_legend_names_the_smallest_confidence() -> None:
    assert extend_legend({}, 0.9, (0, 0, 0)) == {}
    assert extend_legend(TWO_CLASSES.classes, None, (0, 0, 0)) == TWO_CLASSES.classes
    assert extend_legend(TWO_CLASSES.classes, 0.9, (0, 0, 0)) == {**TWO_CLASSES.classes, "below 0.9": (0, 0, 0)}


def test_large_images_are_blended_as_small_ones() -> None:
    rng = np.random.default_rng(0)
    image, colors = rng.integers(0, 256, (2, 200, 5, 3), np.uint8)
    expected = np.rint(image + 0.6 * (colors.astype(np.float32) - image)).astype(np.uint8)
    assert np.array_equal(blend(image, colors, 0.6), expected)
