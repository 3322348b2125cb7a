"""Exports of CVAT, labelme and Supervisely, and other folders, through the command: archives, splits, and what stays unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segkd.data.image_io import Array
from segkd.utils.files import sha256
from tests.helpers.commands import Command
from tests.helpers.exports import write_image
from tests.import_labels import test_cvat_masks, test_cvat_xml, test_folder, test_labelme, test_supervisely

SIZE = (6, 8)
NAMES = ("a", "b", "c", "d")


def write_cvat_masks(root: Path) -> None:
    labels = test_cvat_masks.write_export(root, {"Train": ["a", "b"], "Validation": ["c", "d"]})
    for name in labels:
        test_cvat_masks.write_mask(root / "SegmentationClass" / f"{name}.png", make_label(name))


def write_cvat_xml(root: Path) -> None:
    images = ""
    for number, name in enumerate(NAMES):
        rows = "".join(
            f'<mask label="{label}" occluded="0" rle="{count_runs(make_label(name) == value)}" left="0" top="0" width="8" '
            f'height="6" z_order="0"></mask>'
            for value, label in enumerate(("background", "car", "bus"))
        )
        subset = "Train" if name in "ab" else "Validation"
        images += f'<image id="{number}" name="{name}.png" subset="{subset}" width="8" height="6">{rows}</image>'
        write_image(root / "images" / subset / f"{name}.png", SIZE, number)
    labels = "".join(f"<label><name>{label}</name></label>" for label in ("background", "car", "bus"))
    test_cvat_xml.write_xml(root, f"<meta><project><labels>{labels}</labels></project></meta>{images}")


def write_labelme(root: Path) -> None:
    for name in NAMES:
        shapes = [
            test_labelme.make_shape(
                label, [[0, 0], [8, 6]], "mask", mask=test_labelme.encode(Image.fromarray(make_label(name) == value))
            )
            for value, label in enumerate(("_background_", "car", "bus"))
        ]
        split = "train" if name in "ab" else "val"
        photo = Image.fromarray(np.full((*SIZE, 3), 60, np.uint8))
        test_labelme.write_json(
            root / split / f"{name}.json", shapes, f"{name}.jpg", imageData=test_labelme.encode(photo, "JPEG")
        )
    (root / "labels.txt").write_text("__ignore__\n_background_\ncar\nbus\n", encoding="utf-8")


def write_supervisely(root: Path) -> None:
    titles = ("background", "car", "bus")
    classes = [{"title": title, "shape": "bitmap", "color": "#000000"} for title in titles]
    datasets: dict[str, dict[str, object]] = {"train": {}, "val": {}}
    for name in NAMES:
        objects = [
            test_supervisely.make_bitmap(title, make_label(name) == value, (0, 0)) for value, title in enumerate(titles)
        ]
        datasets["train" if name in "ab" else "val"][f"{name}.jpg"] = objects
    test_supervisely.write_project(root, datasets, classes)


def write_folder(root: Path) -> None:
    for name in NAMES:
        split = "train" if name in "ab" else "val"
        write_image(root / f"{split}_images" / f"{name}.jpg", SIZE)
        test_folder.write_label(root / f"{split}_labels" / f"{name}_mask.png", make_label(name))
    (root / "class_names.txt").write_text("background\ncar\nbus\n", encoding="utf-8")


def make_label(name: str) -> Array:
    return np.random.default_rng(ord(name)).integers(0, 3, SIZE).astype(np.uint8)


def count_runs(mask: np.ndarray) -> str:
    edges = np.flatnonzero(np.diff(mask.ravel().astype(int), prepend=0))
    return ", ".join(map(str, np.diff(np.concatenate([[0], edges, [mask.size]]))))


EXPORTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "CVAT's masks": ("cvat", write_cvat_masks, "zip"),
    "CVAT's XML": ("cvat", write_cvat_xml, "zip"),
    "labelme": ("labelme", write_labelme, ""),
    "Supervisely": ("supervisely", write_supervisely, "tar"),
    "folders": ("folder", write_folder, "gztar"),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_labels_come_back_exactly_and_splits_are_kept(name: str, tmp_path: Path, command: Command) -> None:
    kind, write, archive = EXPORTS[name]
    write(tmp_path / "in")
    source = tmp_path / "in"
    if archive:
        source = Path(shutil.make_archive(str(tmp_path / "export"), archive, tmp_path, "in"))
    before = {path: sha256(path) for path in [source, *(tmp_path / "in").rglob("*")] if path.is_file()}
    result = command("import", f"from={kind}", f"input={source}", f"output={tmp_path / 'out'}")
    assert result.code == 0, result.err
    for image in NAMES:
        split = "train" if image in "ab" else "val"
        np.testing.assert_array_equal(
            np.array(Image.open(tmp_path / "out/labels" / split / f"{image}.png")), make_label(image)
        )
        (photo,) = (tmp_path / "out/images" / split).glob(f"{image}.*")
        assert Image.open(photo).size == SIZE[::-1]
    assert {path: sha256(path) for path in before} == before
    table = yaml.safe_load((tmp_path / "out/classes.yaml").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in table["classes"]] == [0, 1, 2]
    assert "segkd-import-" not in result.err + result.out  # the folder of an unpacked archive


@pytest.mark.parametrize("kind", ["cvat", "labelme", "supervisely", "folder"])
def test_what_is_no_export_is_refused_in_one_sentence(kind: str, tmp_path: Path, command: Command) -> None:
    write_image(tmp_path / "in" / "a.jpg")
    result = command("import", f"from={kind}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    assert (result.code, result.err.count("segkd: "), len(result.err.splitlines())) == (2, 1, 1)
    assert not (tmp_path / "out").exists()


def test_a_damaged_mask_leaves_nothing(tmp_path: Path, command: Command) -> None:
    write_cvat_masks(tmp_path / "in")
    mask = tmp_path / "in" / "SegmentationClass" / "d.png"
    mask.write_bytes(mask.read_bytes()[:60])
    result = command("import", "from=cvat", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    assert (result.code, f"{mask} is not a complete image" in result.err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_images_in_json_files_cannot_be_linked(tmp_path: Path, command: Command) -> None:
    write_labelme(tmp_path / "in")
    arguments = ("import", "from=labelme", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "images=symlink")
    result = command(*arguments)
    assert (result.code, "images=symlink cannot link into an archive or a JSON file" in result.err) == (2, True)


def test_masks_of_another_size_than_their_image_are_left_out(tmp_path: Path, command: Command) -> None:
    write_cvat_masks(tmp_path / "in")
    write_image(tmp_path / "in" / "JPEGImages" / "b.jpg", (9, 8))
    result = command("import", "from=cvat", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    assert result.code == 0
    assert "images of another size than their annotations are left out: 1, the first is" in result.err
    assert "b.jpg, 9×8 and annotated as 6×8" in result.err
