"""Outlines of street scenes come back from exports of CVAT, labelme and Supervisely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segkd.data.image_io import Array
from segkd.data.streets import Streets
from segkd.import_labels.annotations import Export, Notes, ReadSettings
from segkd.import_labels.formats.cvat import read_cvat
from segkd.import_labels.formats.labelme import read_labelme
from segkd.import_labels.formats.supervisely import read_supervisely
from segkd.types import IGNORE_INDEX
from tests.helpers.exports import draw_labels, write_image
from tests.import_labels import test_cvat_xml, test_labelme, test_supervisely
from tests.import_labels.test_round_trip import iterate_parts, trace_edges, trace_indices

Objects = list[tuple[str, list[list[float]]]]
"""Class and points, those that surround others first."""


@pytest.fixture(scope="module")
def label() -> Array:
    return Streets("train", images=1)[0].label


def list_objects(label: Array, trace: Callable[[Array], Any], connectivity: int) -> Objects:
    found = []
    for category, part in iterate_parts(label, len(Streets.classes), connectivity):
        (outline,) = trace(part)
        points = np.array(outline, np.float64).reshape(-1, 2)
        if len(points) > 2:
            found.append((cv2.contourArea(points.astype(np.float32)), Streets.classes[category], points.tolist()))
    return [(name, points) for _, name, points in sorted(found, key=lambda item: -item[0])]


def write_cvat(root: Path, objects: Objects, size: tuple[int, int]) -> None:
    shapes = "".join(
        f'<polygon label="{name}" occluded="0" points="{";".join(f"{x:.2f},{y:.2f}" for x, y in points)}" z_order="0"/>'
        for name, points in objects
    )
    test_cvat_xml.write_export(root, shapes, dict.fromkeys(Streets.classes, ""), size)


def write_labelme(root: Path, objects: Objects, size: tuple[int, int]) -> None:
    write_image(root / "a.png", size)
    test_labelme.write_json(root / "a.json", [test_labelme.make_shape(*entry) for entry in objects], size=size)
    (root / "labels.txt").write_text("\n".join(Streets.classes), encoding="utf-8")


def write_supervisely(root: Path, objects: Objects, size: tuple[int, int]) -> None:
    classes = [{"title": name, "shape": "polygon", "color": "#000000"} for name in Streets.classes]
    entries = [test_supervisely.make_object(name, "polygon", points) for name, points in objects]
    test_supervisely.write_project(root, {"ds": {}}, classes)
    write_image(root / "ds" / "img" / "a.png", size)
    test_supervisely.write_annotation(root / "ds" / "ann" / "a.png.json", entries, size=size)


Read = Callable[[Path, ReadSettings, Notes], Export]
FORMATS: dict[str, tuple[Read, Callable[[Path, Objects, tuple[int, int]], None], Any, int, float]] = {
    "CVAT": (read_cvat, write_cvat, trace_edges, 4, 1.0),
    "labelme": (read_labelme, write_labelme, trace_edges, 4, 1.0),
    "Supervisely": (read_supervisely, write_supervisely, trace_indices, 8, 0.995),  # two points are no outline
}


@pytest.mark.parametrize("name", FORMATS)
def test_outlines_come_back(name: str, label: Array, tmp_path: Path) -> None:
    read, write, trace, connectivity, least = FORMATS[name]
    write(tmp_path, list_objects(label, trace, connectivity), label.shape)
    export = read(tmp_path, ReadSettings(), Notes())
    assert [entry.name for entry in export.classes] == list(Streets.classes)
    is_labeled = label != IGNORE_INDEX
    assert (draw_labels(export)["a"] == label)[is_labeled].mean() >= least


def test_outlines_of_indices_lose_pixels_where_points_are_positions(label: Array, tmp_path: Path) -> None:
    write_cvat(tmp_path, list_objects(label, trace_indices, 8), label.shape)
    drawn = draw_labels(read_cvat(tmp_path, ReadSettings(), Notes()))["a"]
    assert (drawn == label)[label != IGNORE_INDEX].mean() < 0.99
