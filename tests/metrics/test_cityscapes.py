"""Class, category and instance IoU against the figures of Cityscapes' own scorer (see official_scorer.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segkd.data.cityscapes import CLASSES, Cityscapes
from segkd.errors import UserError
from segkd.evaluate.loop import compute_confusion_matrices
from segkd.evaluate.metrics_report import CategoryReport, InstanceIoUReport
from segkd.metrics import Scores
from segkd.metrics.cityscapes import CATEGORIES, INSTANCE_PIXELS, to_category_matrix
from tests.helpers.official_scorer import FIGURES, Painted, write

KINDS = ("class", "category", "instances", "instance categories")


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cityscapes")
    write(root)
    return root


def ours(root: Path, void_competes: bool, void_row: float = 0) -> dict[str, tuple[float, dict[str, float]]]:
    """Mean and parts of each kind of IoU; what is nowhere is left out, as in the official file."""
    dataset, device = Cityscapes(root, "val"), torch.device("cpu")
    instances = InstanceIoUReport(dataset, device)
    matrices = compute_confusion_matrices(Painted(), dataset, count_void=void_competes, callbacks=[instances])
    if void_competes:
        matrices[:, -1] = (matrices[:, -1] * void_row).long()
    scores = Scores.from_confusion_matrix(matrices.sum(0), len(CLASSES))
    facts, groups = instances.compute(matrices).values, CategoryReport(dataset).compute(matrices).values
    found = (
        (scores.miou, dict(zip(CLASSES, scores.iou, strict=True))),
        (groups["miou"], groups["iou"]),
        (facts["miou"], facts["iou"]),
        (facts["category_miou"], facts["category_iou"]),
    )
    there = ((mean, {k: v for k, v in each.items() if v is not None and v == v}) for mean, each in found)
    return dict(zip(KINDS, there, strict=True))


def official(void_competes: bool) -> dict[str, tuple[float, dict[str, float]]]:
    told = json.loads(FIGURES.read_text())[str(void_competes)]
    names = (
        ("Classes", "class"),
        ("Categories", "category"),
        ("InstClasses", "classInst"),
        ("InstCategories", "categoryInst"),
    )
    return {
        kind: (told[f"averageScore{mean}"], told[f"{each}Scores"])
        for kind, (mean, each) in zip(KINDS, names, strict=True)
    }


def disagreements(root: Path, void_competes: bool, void_row: float = 0) -> list[str]:
    """The kinds of score that differ from the official ones by 1e-9."""
    found, told = ours(root, void_competes, void_row), official(void_competes)
    return [
        kind
        for kind in KINDS
        if found[kind][0] != pytest.approx(told[kind][0], abs=1e-9)
        or found[kind][1] != pytest.approx(told[kind][1], abs=1e-9)
    ]


@pytest.mark.parametrize("void_competes", [False, True])
def test_equal_to_the_official_scorer(streets: Path, void_competes: bool) -> None:
    """With void in labels and predictions, a class that is nowhere (train) and one that is predicted only (wall)."""
    assert disagreements(streets, void_competes) == []
    parts = official(void_competes)["class"][1]
    assert "train" not in parts
    assert parts["wall"] == 0


def test_a_fault_would_show(streets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disagreements(streets, True, void_row=1) == ["class"], "false positives on void"

    monkeypatch.setitem(INSTANCE_PIXELS, "person", 3462.0)
    assert disagreements(streets, False) == ["instances", "instance categories"]
    monkeypatch.undo()

    monkeypatch.setitem(CATEGORIES, "flat", ("road",))
    monkeypatch.setitem(CATEGORIES, "nature", ("vegetation", "terrain", "sidewalk"))
    assert disagreements(streets, False) == ["category"]


def test_categories_by_hand() -> None:
    """A road taken for a sidewalk is flat all the same; taken for a wall it is not."""
    matrix = torch.zeros(20, 20, dtype=torch.int64)
    matrix[0, 0], matrix[0, 1], matrix[0, 3], matrix[19, 0], matrix[3, 19] = 5, 2, 3, 7, 1

    def seen(merged: Tensor) -> list[list[int]]:
        return merged[[0, 1, 7]][:, [0, 1, 7]].tolist()

    merged = to_category_matrix(matrix, CLASSES)
    assert merged.shape == (8, 8)
    assert seen(merged) == [[7, 3, 0], [0, 0, 1], [7, 0, 0]]
    assert to_category_matrix(matrix[:19, :19], CLASSES)[:2, :2].tolist() == [[7, 3], [0, 0]]


def test_without_instance_files(streets: Path, tmp_path: Path) -> None:
    dataset = Cityscapes(streets, "val")
    dataset.files = [(tmp_path / "lindau_000000_000019_leftImg8bit.png", tmp_path)]
    dataset.root = tmp_path
    with pytest.raises(UserError, match=r"cannot read .*gtFine_instanceIds\.png .*restore the file"):
        dataset.load_instances(0)
