"""Renderers against values worked by hand, and legends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkd.data.cityscapes import Cityscapes
from segkd.data.drawing import blend, draw_image_grid, draw_legend
from segkd.errors import UserError
from segkd.predict.pipeline import FramePrediction
from segkd.predict.rendering import Palette, make_label_id_table, make_renderer
from segkd.predict.sources import Frame

TWO_CLASSES = Palette("Two", {"sky": (10, 20, 30), "road": (200, 100, 0)})
LABELS = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)
PREDICTION = FramePrediction(Frame("a", IMAGE), {"student": LABELS, "teacher": 1 - LABELS})


def test_class_ids_and_color_masks() -> None:
    assert np.array_equal(make_renderer("class_ids", TWO_CLASSES, 0.5, {})(PREDICTION), LABELS)
    colors = make_renderer("color_masks", TWO_CLASSES, 0.5, {})(PREDICTION)
    assert colors.tolist()[0] == [[10, 20, 30], [200, 100, 0], [200, 100, 0]]


def test_overlay_blends_by_opacity() -> None:
    assert make_renderer("overlay", TWO_CLASSES, 0.25, {})(PREDICTION).tolist()[0][0] == [78, 80, 82]
    assert np.array_equal(blend(IMAGE, 255 - IMAGE, 0.0), IMAGE)
    assert np.array_equal(blend(IMAGE, 255 - IMAGE, 1.0), 255 - IMAGE)


def test_legend_is_appended_below_the_unchanged_image() -> None:
    plain, extended = (
        make_renderer("color_masks", TWO_CLASSES, 0.5, classes)(PREDICTION) for classes in ({}, TWO_CLASSES.classes)
    )
    assert np.array_equal(extended[:2], plain)
    assert extended.shape[1] == 3
    assert extended.shape[0] > 2


def test_side_by_side_shows_image_student_and_teacher() -> None:
    sheet = make_renderer("side_by_side", TWO_CLASSES, 0.5, {})(PREDICTION)
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
    table = make_label_id_table(palette)
    assert table.tolist() == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert [Cityscapes.label_map[label_id] for label_id in table.tolist()] == [*range(19)]
    label_ids = make_renderer("label_ids", palette, 0.5, {})(PREDICTION)
    assert label_ids.tolist() == [[7, 8, 8], [8, 8, 7]]
    with pytest.raises(UserError, match="this student has those of Two; use class_ids"):
        make_label_id_table(TWO_CLASSES)


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
