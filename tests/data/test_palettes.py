"""Palettes that differ from file to file are found: an index that changes its color means nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from segkd.data.folder import Folder
from segkd.data.integrity import inspect_sample
from segkd.data.label_issues import find_palette_issues
from segkd.errors import UserError
from tests.helpers.fake_datasets import write_folder, write_palette

BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 255, 0)


def write_labels(root: Path, palettes: list[list[tuple[int, int, int]]], **metadata: object) -> Folder:
    """Write labels of 0, 1 and 2, one for each palette, and return the dataset."""
    write_folder(root)
    classes = [{"name": "ground"}, {"name": "crop"}, {"name": "weed"}]
    (root / "classes.yaml").write_text(
        yaml.safe_dump({"classes": classes, "labels": "palette", "size": [40, 60], **metadata})
    )
    paths = sorted((root / "labels/train").rglob("*.png"))
    for path, palette in zip(paths, palettes, strict=True):
        write_palette(path, np.arange(40 * 60, dtype=np.uint8).reshape(40, 60) % len(palette), palette)
    return Folder(root, "train")


def find_issues(dataset: Folder) -> list[tuple[str, str]]:
    samples = [inspect_sample(dataset, index) for index in range(len(dataset))]
    return [(issue.path.name, issue.message) for issue in find_palette_issues(dataset, samples)]


def count_labels(tmp_path: Path) -> int:
    write_folder(tmp_path)
    return len(list((tmp_path / "labels/train").rglob("*.png")))


def test_equal_palettes_have_no_issue(tmp_path: Path) -> None:
    """Colors after the last used index may differ, and so may an index that a label does not hold."""
    count = count_labels(tmp_path)
    dataset = write_labels(tmp_path, [[BLACK, RED, GREEN], *[[BLACK, RED]] * (count - 1)])
    assert find_issues(dataset) == []
    assert all(np.array_equal(dataset[i].label, dataset.load_label_values(i)) for i in range(count))


def test_other_palette_is_a_fault(tmp_path: Path) -> None:
    count = count_labels(tmp_path)
    dataset = write_labels(tmp_path, [[BLACK, RED, GREEN]] * (count - 1) + [[BLACK, GREEN, RED]])
    [(name, message)] = find_issues(dataset)
    first, last = dataset.files[0][1], dataset.files[-1][1]
    assert name == last.name
    assert message.startswith(f"label {last} has #00ff00 at palette index 1, and {first} has #ff0000; if the colors")
    assert "`labels: colors`" in message
    assert dataset[0].label.max() == 2
    with pytest.raises(UserError) as error:
        dataset[count - 1]
    assert str(error.value) == message


def test_colors_of_classes_are_compared(tmp_path: Path) -> None:
    """Colors that `classes.yaml` gives are right; defaults are arbitrary."""
    count = count_labels(tmp_path)
    classes = [{"name": "ground", "color": list(BLACK)}, {"name": "crop", "color": list(GREEN)}, {"name": "weed"}]
    dataset = write_labels(tmp_path, [[BLACK, RED, GREEN]] * count, classes=classes)
    assert len(find_issues(dataset)) == count
    with pytest.raises(UserError, match=r"has #ff0000 at palette index 1, and classes.yaml has #00ff00; if the colors"):
        dataset[0]


def test_labels_of_colors_are_indifferent_to_palettes(tmp_path: Path) -> None:
    """The cure that the fault names."""
    count = count_labels(tmp_path)
    classes = [
        {"name": name, "color": list(color)} for name, color in {"ground": BLACK, "crop": RED, "weed": GREEN}.items()
    ]
    palettes = [[BLACK, RED, GREEN]] * (count - 1) + [[BLACK, GREEN, RED]]
    dataset = write_labels(tmp_path, palettes, labels="colors", classes=classes)
    assert find_issues(dataset) == []
    assert np.array_equal(dataset[0].label[0, :3], [0, 1, 2])
    assert np.array_equal(dataset[count - 1].label[0, :3], [0, 2, 1])
