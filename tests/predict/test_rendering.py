"""Views of a labelled frame, by hand; legends that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkd.data.cityscapes import Cityscapes
from segkd.errors import UserError
from segkd.predict.drawing import blend, draw_legend, image_grid
from segkd.predict.pipeline import FramePrediction
from segkd.predict.rendering import Palette, make_renderer, to_label_ids
from segkd.predict.sources import Frame

TWO = Palette("Two", {"sky": (10, 20, 30), "road": (200, 100, 0)})
LABELS = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)
ONE = FramePrediction(Frame("a", IMAGE), {"student": LABELS, "teacher": 1 - LABELS})


def test_ids_and_colours() -> None:
    assert np.array_equal(make_renderer("labels", TWO, 0.5, {})(ONE), LABELS)
    colors = make_renderer("colors", TWO, 0.5, {})(ONE)
    assert colors.tolist()[0] == [[10, 20, 30], [200, 100, 0], [200, 100, 0]]


def test_an_overlay_mixes() -> None:
    assert make_renderer("overlay", TWO, 0.25, {})(ONE).tolist()[0][0] == [78, 80, 82]
    assert np.array_equal(blend(IMAGE, 255 - IMAGE, 0.0), IMAGE)
    assert np.array_equal(blend(IMAGE, 255 - IMAGE, 1.0), 255 - IMAGE)


def test_a_legend_lies_beneath_and_the_picture_stays() -> None:
    plain, keyed = (make_renderer("colors", TWO, 0.5, classes)(ONE) for classes in ({}, TWO.classes))
    assert np.array_equal(keyed[:2], plain)
    assert keyed.shape[1] == 3
    assert keyed.shape[0] > 2


def test_side_by_side_shows_image_student_and_teacher() -> None:
    sheet = make_renderer("side_by_side", TWO, 0.5, {})(ONE)
    expected = np.asarray(
        image_grid({"image": [IMAGE], "student": [np.zeros_like(IMAGE)], "teacher": [IMAGE]}, {}, scale=1)
    )
    assert sheet.shape == expected.shape
    found = [np.argwhere((sheet == color).all(2)) for color in ((100, 100, 100), (10, 20, 30), (200, 100, 0))]
    assert [len(places) for places in found] == [6, 2 + 4, 4 + 2]
    student, teacher = sheet[-8:-6, 15:18], sheet[-8:-6, 24:27]
    assert student[0, 0].tolist() == [10, 20, 30]
    assert teacher[0, 0].tolist() == [200, 100, 0]


def test_city_ids_are_those_of_the_labels_on_disk() -> None:
    palette = Palette("Cityscapes", dict(zip(Cityscapes.classes, Cityscapes.colors, strict=True)))
    table = to_label_ids(palette)
    assert table.tolist() == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert [Cityscapes.label_map[label_id] for label_id in table.tolist()] == [*range(19)]
    shown = make_renderer("city_ids", palette, 0.5, {})(ONE)
    assert shown.tolist() == [[7, 8, 8], [8, 8, 7]]
    with pytest.raises(UserError, match="this student knows the classes of Two; take labels"):
        to_label_ids(TWO)


@pytest.mark.parametrize("width", [150, 400, 2000])
def test_a_legend_shows_every_class_whatever_its_width(width: int) -> None:
    classes = {name: (7 * i, 255 - 9 * i, 40) for i, name in enumerate(Cityscapes.classes)}
    sheet = np.asarray(draw_legend(classes, width))
    assert sheet.shape[1] == width
    for color in classes.values():
        assert (sheet == color).all(2).sum() == 15 * 15
    assert (sheet[:, -3:] == 255).all()  # no name is cut off


def test_a_student_that_does_not_name_its_classes(tmp_path: Path, teacher_file: Path) -> None:
    with pytest.raises(UserError, match=r"student.yaml names no classes with their colours; copy it again"):
        Palette.of_run(teacher_file.parent)
