"""The ids of predicted label files are those that the dataset reads as the predicted classes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from segkd.data.camvid import CamVid
from segkd.data.cityscapes import Cityscapes
from segkd.data.own_ids import OwnIds, find_ids_in_table
from segkd.data.voc import VOC
from segkd.errors import UserError
from segkd.predict.label_values import LabelValues, find_ids_of_files, make_index_values, make_own_values
from segkd.predict.palette import Palette
from segkd.types import IGNORE_INDEX

PALETTE = Palette("Farm", {"soil": (1, 2, 3), "crop": (4, 5, 6)})
FILE = Path("run/student.yaml")


@pytest.mark.parametrize(("dataset", "ignored"), [(CamVid, 11), (VOC, 255), (Cityscapes, 0)])
def test_own_ids_are_read_back_as_the_classes(dataset: type[CamVid | VOC | Cityscapes], ignored: int) -> None:
    ids = find_ids_in_table(dataset.label_map, len(dataset.classes))
    assert ids is not None
    assert [dataset.label_map[value] for value in ids.classes] == [*range(len(dataset.classes))]
    assert ids.ignored == ignored
    assert dataset.label_map[ignored] == IGNORE_INDEX


def test_tables_without_an_id_for_each_class() -> None:
    assert find_ids_in_table({0x0A0B0C: 0, 0xFF0000: 1}, 2) is None, "colors"
    assert find_ids_in_table({0: 0}, 2) is None
    assert find_ids_in_table({5: 1, 4: 0, 3: 0}, 2) == OwnIds((4, 5), None), "the first of several"


def test_values_of_labels() -> None:
    labels = np.array([[0, 1, 255]], np.uint8)
    assert make_index_values(2).apply(labels) is labels
    assert LabelValues((10, 20), 255).apply(labels).tolist() == [[10, 20, 255]]
    assert LabelValues((0, 1), 9).apply(labels).tolist() == [[0, 1, 9]]


def test_a_value_that_is_free_stands_for_ignored_pixels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_own_values(OwnIds((0, 255), None), "Masks") == LabelValues((0, 255), 254)
    assert "Masks ignores no id; pixels without a class hold 254" in caplog.text
    caplog.clear()
    assert make_own_values(OwnIds((0, 255), 7), "Masks") == LabelValues((0, 255), 7)
    assert not caplog.text


def test_ids_of_a_students_yaml() -> None:
    metadata = {"classes": ("soil", "crop"), "ids": {"soil": 10, "crop": 20}, "ignore_id": 3}
    assert find_ids_of_files(metadata, FILE, PALETTE, None, "names") == OwnIds((10, 20), 3)
    with pytest.raises(UserError, match=r"the labels of Farm have no id 0–255 for each class.*outputs=\[color_masks\]"):
        find_ids_of_files({**metadata, "ids": None}, FILE, PALETTE, None, "names")
    with pytest.raises(UserError, match=r"student\.yaml does not hold the ids of its dataset; give dataset=NAME"):
        find_ids_of_files({"classes": ("soil", "crop")}, FILE, PALETTE, None, "names")


@pytest.mark.parametrize(
    "fault",
    [
        {"ids": {"soil": 10}},
        {"ids": {"soil": 10, "crop": 10}},
        {"ids": {"crop": 20, "soil": 10}},
        {"ids": {"soil": 10, "crop": 256}},
        {"ids": {"soil": 10, "crop": "20"}},
        {"ids": [10, 20]},
        {"ignore_id": -1},
    ],
)
def test_ids_that_are_none(fault: dict[str, object]) -> None:
    metadata = {"classes": ("soil", "crop"), "ids": {"soil": 10, "crop": 20}, "ignore_id": None}
    assert find_ids_of_files(metadata, FILE, PALETTE, None, "names") == OwnIds((10, 20), None)
    with pytest.raises(UserError, match=r"student\.yaml has no id 0–255 of its own for each class; copy it again"):
        find_ids_of_files({**metadata, **fault}, FILE, PALETTE, None, "names")
