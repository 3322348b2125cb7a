"""Labels, written as an export, come back through `python -m segkd.import`; the dataset passes `check` and trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from segkd.data.camvid import CamVid
from segkd.data.folder import Folder
from segkd.data.image_io import Array
from segkd.data.streets import Streets
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command

Outlines = Callable[[Array], Any]
_SCALE = 4


def trace_edges(mask: Array) -> list[list[float]]:
    """Return the outer outline of a mask along the edges of its pixels."""
    left, top, width, height = cv2.boundingRect(mask)
    enlarged = np.kron(mask[top : top + height, left : left + width], np.ones((_SCALE, _SCALE), np.uint8))
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = [np.rint((contour.reshape(-1, 2) + 0.5) / _SCALE) + np.array([left, top]) for contour in contours]
    return [outline.ravel().tolist() for outline in outlines]


def trace_indices(mask: Array) -> list[list[int]]:
    """Return the outer outline as many scripts write it, through the outermost pixels."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.ravel().tolist() for contour in contours]


def encode(mask: Array) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write_coco(root: Path, samples: list[tuple[Array, Array]], classes: tuple[str, ...], outline: Outlines) -> Path:
    """Write each connected part of each class as an object, images as PNG."""
    (root / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (image, label) in enumerate(samples):
        height, width = label.shape
        images.append({"id": i, "file_name": f"{i:03}.png", "height": height, "width": width})
        cv2.imwrite(str(root / f"images/{i:03}.png"), image[..., ::-1])
        for category, part in iterate_parts(label, len(classes), 4 if outline is trace_edges else 8):
            box, area = cv2.boundingRect(part), int(part.sum())
            entry = {"segmentation": outline(part), "bbox": box, "area": area, "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": i, "category_id": 2 * category + 1, **entry})
    categories = [{"id": 2 * i + 1, "name": name} for i, name in enumerate(classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def iterate_parts(label: Array, num_classes: int, connectivity: int) -> Iterator[tuple[int, Array]]:
    for category in range(num_classes):
        count, parts = cv2.connectedComponents((label == category).astype(np.uint8), connectivity=connectivity)
        for part in range(1, count):
            yield category, (parts == part).astype(np.uint8)


def compare(root: Path, samples: list[tuple[Array, Array]]) -> tuple[float, float]:
    """Return the part of equal pixels, of all and of the labeled ones."""
    equal = []
    for split in Folder(root, "train").splits:
        dataset = Folder(root, split)
        for i in range(len(dataset)):
            image, label = samples[int(dataset.files[i][0].stem)]
            np.testing.assert_array_equal(dataset[i].image, image)
            equal.append(
                ((dataset[i].label == label).mean(), (dataset[i].label == label)[label != IGNORE_INDEX].mean())
            )
    assert len(equal) == len(samples)
    return tuple(np.mean(equal, axis=0).tolist())  # type: ignore[return-value]


@pytest.fixture(scope="module")
def streets() -> list[tuple[Array, Array]]:
    dataset = Streets("train", images=6)
    return [dataset[i] for i in range(6)]


@pytest.mark.parametrize(
    ("outline", "key", "least"),
    [
        (encode, "edges", 1.0),
        (trace_edges, "edges", 1.0),
        (trace_indices, "centers", 0.995),
        (trace_edges, "null", 1.0),
        (trace_indices, "null", 0.995),
    ],
    ids=["RLE", "edges", "indices", "edges by themselves", "indices by themselves"],
)
def test_labels_come_back(
    tmp_path: Path, command: Command, streets: list[tuple[Array, Array]], outline: Outlines, key: str, least: float
) -> None:
    root, output = write_coco(tmp_path / "in", streets, Streets.classes, outline), tmp_path / "out"
    arguments = ("from=coco", f"input={root}", f"output={output}", "unlabeled=ignore", f"outlines={key}")
    result = command("import", *arguments)
    assert result.code == 0, result.err
    assert compare(output, streets)[1] >= least


def test_indices_drawn_as_edges_lose_pixels(
    tmp_path: Path, command: Command, streets: list[tuple[Array, Array]]
) -> None:
    root, output = write_coco(tmp_path / "in", streets, Streets.classes, trace_indices), tmp_path / "out"
    arguments = ("from=coco", f"input={root}", f"output={output}", "unlabeled=ignore", "outlines=edges")
    assert command("import", *arguments).code == 0
    assert compare(output, streets)[1] < 0.98


def test_an_imported_dataset_is_checked_and_trains(
    tmp_path: Path, command: Command, streets: list[tuple[Array, Array]]
) -> None:
    root, output = write_coco(tmp_path / "in", streets, Streets.classes, encode), tmp_path / "out"
    assert command("import", "from=coco", f"input={root}", f"output={output}", "unused_classes=drop").code == 0
    checked = command("check", "dataset=folder", f"dataset.root={output}")
    assert (checked.code, "6 images, no faults" in checked.out) == (0, True), checked.out
    data = ("dataset=folder", f"dataset.root={output}", "data.batch_size=2", "data.workers=0", "data.crop_size=[48,64]")
    trained = command(
        "train", *data, "model@student=enet", "trainer=cpu", "trainer.max_epochs=1", f"output_dir={tmp_path / 'run'}"
    )
    assert trained.code == 0, trained.err


@pytest.mark.published
@pytest.mark.parametrize(
    ("outline", "key", "of_all", "of_labeled"),
    [
        (trace_edges, "null", 0.9986, 1.0),  # what is void inside an object is not annotated
        (trace_indices, "null", 0.9976, 0.9990),
        (trace_indices, "edges", 0.9610, 0.9617),
    ],
)
def test_twenty_images_of_camvid_come_back(
    tmp_path: Path,
    command: Command,
    published_files: Path,
    outline: Outlines,
    key: str,
    of_all: float,
    of_labeled: float,
) -> None:
    dataset = CamVid(published_files / "data/camvid", "test")
    samples = [dataset[i] for i in range(0, 220, 11)]
    root, output = write_coco(tmp_path / "in", samples, CamVid.classes, outline), tmp_path / "out"
    arguments = ("from=coco", f"input={root}", f"output={output}", "unlabeled=ignore", f"outlines={key}")
    assert command("import", *arguments).code == 0
    assert compare(output, samples) == pytest.approx((of_all, of_labeled), abs=1e-4)
