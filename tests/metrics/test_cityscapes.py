"""Class, category and instance IoU against the results of Cityscapes' official scorer (see official_scorer.py)."""

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
from tests.helpers.official_scorer import OFFICIAL_SCORES, RedChannelModel, write_random_cityscapes

KINDS = ("class", "category", "instances", "instance categories")


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cityscapes")
    write_random_cityscapes(root)
    return root


def compute_scores(root: Path, count_void: bool, void_row: float = 0) -> dict[str, tuple[float, dict[str, float]]]:
    """Return mean and parts of each kind of IoU, without absent classes, as in the official file."""
    dataset, device = Cityscapes(root, "val"), torch.device("cpu")
    instances = InstanceIoUReport(dataset, device)
    matrices = compute_confusion_matrices(RedChannelModel(), dataset, count_void=count_void, callbacks=[instances])
    if count_void:
        matrices[:, -1] = (matrices[:, -1] * void_row).long()
    scores = Scores.from_confusion_matrix(matrices.sum(0), len(CLASSES))
    instance_iou, category_iou = instances.compute(matrices).values, CategoryReport(dataset).compute(matrices).values
    results = (
        (scores.miou, dict(zip(CLASSES, scores.iou, strict=True))),
        (category_iou["miou"], category_iou["iou"]),
        (instance_iou["miou"], instance_iou["iou"]),
        (instance_iou["category_miou"], instance_iou["category_iou"]),
    )
    present = ((mean, {k: v for k, v in parts.items() if v is not None and v == v}) for mean, parts in results)
    return dict(zip(KINDS, present, strict=True))


def read_official_scores(count_void: bool) -> dict[str, tuple[float, dict[str, float]]]:
    official = json.loads(OFFICIAL_SCORES.read_text())[str(count_void)]
    names = (
        ("Classes", "class"),
        ("Categories", "category"),
        ("InstClasses", "classInst"),
        ("InstCategories", "categoryInst"),
    )
    return {
        kind: (official[f"averageScore{mean}"], official[f"{part}Scores"])
        for kind, (mean, part) in zip(KINDS, names, strict=True)
    }


def list_disagreements(root: Path, count_void: bool, void_row: float = 0) -> list[str]:
    """Return the kinds of score that differ from the official ones by 1e-9."""
    scores, official = compute_scores(root, count_void, void_row), read_official_scores(count_void)
    return [
        kind
        for kind in KINDS
        if scores[kind][0] != pytest.approx(official[kind][0], abs=1e-9)
        or scores[kind][1] != pytest.approx(official[kind][1], abs=1e-9)
    ]


@pytest.mark.parametrize("count_void", [False, True])
def test_scores_equal_the_official_scorer(streets: Path, count_void: bool) -> None:
    """With void in labels and predictions, an absent class (train) and one that is only predicted (wall)."""
    assert list_disagreements(streets, count_void) == []
    parts = read_official_scores(count_void)["class"][1]
    assert "train" not in parts
    assert parts["wall"] == 0


def test_faults_are_detected(streets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_disagreements(streets, True, void_row=1) == ["class"], "false positives on void"

    monkeypatch.setitem(INSTANCE_PIXELS, "person", 3462.0)
    assert list_disagreements(streets, False) == ["instances", "instance categories"]
    monkeypatch.undo()

    monkeypatch.setitem(CATEGORIES, "flat", ("road",))
    monkeypatch.setitem(CATEGORIES, "nature", ("vegetation", "terrain", "sidewalk"))
    assert list_disagreements(streets, False) == ["category"]


def test_categories_by_hand() -> None:
    """Road predicted as sidewalk is still flat; predicted as wall it is not."""
    matrix = torch.zeros(20, 20, dtype=torch.int64)
    matrix[0, 0], matrix[0, 1], matrix[0, 3], matrix[19, 0], matrix[3, 19] = 5, 2, 3, 7, 1

    def select(merged: Tensor) -> list[list[int]]:
        return merged[[0, 1, 7]][:, [0, 1, 7]].tolist()

    merged = to_category_matrix(matrix, CLASSES)
    assert merged.shape == (8, 8)
    assert select(merged) == [[7, 3, 0], [0, 0, 1], [7, 0, 0]]
    assert to_category_matrix(matrix[:19, :19], CLASSES)[:2, :2].tolist() == [[7, 3], [0, 0]]


def test_missing_instance_file_is_refused(streets: Path, tmp_path: Path) -> None:
    dataset = Cityscapes(streets, "val")
    dataset.files = [(tmp_path / "lindau_000000_000019_leftImg8bit.png", tmp_path)]
    dataset.root = tmp_path
    with pytest.raises(UserError, match=r"cannot read .*gtFine_instanceIds\.png .*restore the file"):
        dataset.load_instances(0)
