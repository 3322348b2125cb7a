"""The confusion matrix and its scores against a reference, by hand, and with void and bad labels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from segkd.metrics import ConfusionMatrix, Scores, constant_class_miou
from segkd.types import IGNORE_INDEX


def make_logits(predicted: Tensor, outputs: int) -> Tensor:
    """Return logits B K H W that predict `predicted`, B H W."""
    return one_hot(predicted, outputs).movedim(-1, 1).float()


def count(predicted: Tensor, target: Tensor, classes: int, outputs: int, count_void: bool = False) -> Tensor:
    matrix = ConfusionMatrix(classes, count_void)
    matrix.update(make_logits(predicted, outputs), target)
    counts: Tensor = matrix.compute()
    return counts


def compute_reference(predicted: Tensor, target: Tensor, classes: int) -> list[float | None]:
    """Compute the IoU by its definition, pixel by pixel; None where the class is in neither map."""
    pairs = [
        (p, t)
        for p, t in zip(predicted.flatten().tolist(), target.flatten().tolist(), strict=True)
        if t != IGNORE_INDEX
    ]
    scores: list[float | None] = []
    for k in range(classes):
        intersection = sum(p == k and t == k for p, t in pairs)
        union = sum(p == k or t == k for p, t in pairs)
        scores.append(intersection / union if union else None)
    return scores


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(2, 6), height=st.integers(1, 5), width=st.integers(1, 5), batch=st.integers(1, 3),
    seed=st.integers(0, 2**16), present=st.integers(1, 6), void=st.floats(0, 1),
)  # fmt: skip
def test_iou_equals_the_definition(
    classes: int, height: int, width: int, batch: int, seed: int, present: int, void: float
) -> None:
    """With classes that are absent, predicted only, or labeled only, and any share of void, up to all."""
    torch.manual_seed(seed)
    size = (batch, height, width)
    predicted = torch.randint(0, classes, size)
    target = torch.randint(0, min(present, classes), size)
    target[torch.rand(size) < void] = IGNORE_INDEX
    matrix = count(predicted, target, classes, classes)
    assert matrix.dtype == torch.int64
    assert matrix.sum() == (target != IGNORE_INDEX).sum()
    expected = compute_reference(predicted, target, classes)
    scores = Scores.from_confusion_matrix(matrix, classes)
    assert [None if math.isnan(v) else v for v in scores.iou] == pytest.approx(expected)
    present = [v for v in expected if v is not None]
    assert scores.miou == pytest.approx(sum(present) / len(present) if present else math.nan, nan_ok=True)

    one_by_one = ConfusionMatrix(classes)
    for i in range(batch):
        one_by_one.update(make_logits(predicted[i : i + 1], classes), target[i : i + 1])
    assert torch.equal(one_by_one.compute(), matrix)


def test_scores_by_hand() -> None:
    """Class 0: 3 of 4 hit, 1 false. Class 1: 1 of 2 hit, 1 false. Class 2: predicted only. Class 3: absent."""
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, IGNORE_INDEX, IGNORE_INDEX]]])
    predicted = torch.tensor([[[0, 0, 0, 1, 1, 0, 2, 2]]])
    scores = Scores.from_confusion_matrix(count(predicted, target, 4, 4), 4)
    assert scores.iou[:2] == [3 / 5, 1 / 3]
    assert math.isnan(scores.iou[2]), "on void it does not count"
    assert scores.miou == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert scores.class_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.pixel_accuracy == pytest.approx(4 / 6)

    predicted[0, 0, 0] = 2  # now on a labeled pixel: a false positive makes its IoU 0, which counts in the mean
    scores = Scores.from_confusion_matrix(count(predicted, target, 4, 4), 4)
    assert scores.iou[2] == 0
    assert scores.miou == pytest.approx((2 / 5 + 1 / 3 + 0) / 3)
    assert scores.class_accuracy == pytest.approx((2 / 4 + 1 / 2) / 2), "over the classes in the labels"


def test_void_counted_by_hand() -> None:
    """Three outputs for two classes; the third predicts void, which is allowed."""
    target = torch.tensor([[[0, 0, 1, 1, IGNORE_INDEX, IGNORE_INDEX]]])
    predicted = torch.tensor([[[0, 2, 1, 1, 0, 2]]])
    matrix = count(predicted, target, 2, 3, count_void=True)
    assert matrix.tolist() == [[1, 0, 1], [0, 2, 0], [1, 0, 1]]
    scores = Scores.from_confusion_matrix(matrix, 2)
    assert scores.iou == [1 / 3, 1]
    assert scores.miou == pytest.approx(2 / 3)
    assert scores.class_accuracy == pytest.approx((1 / 2 + 1) / 2)
    assert scores.pixel_accuracy == pytest.approx(4 / 6)

    ignored = count(predicted, target, 2, 3)
    assert ignored.tolist() == [[2, 0], [0, 2]], "void does not compete: the best of the two classes wins"


@pytest.mark.parametrize("count_void", [False, True])
@pytest.mark.parametrize("label", [3, 4, 11, 254, 256, -1, -255])
def test_label_out_of_range_is_refused(label: int, count_void: bool) -> None:
    target = torch.tensor([[[0, 1, label]]])
    matrix = ConfusionMatrix(3, count_void)
    with pytest.raises(ValueError, match=r"a label is outside 0\.\.2 and not 255"):
        matrix.update(make_logits(torch.zeros_like(target), 3), target)
    assert not matrix.compute().any(), "and nothing of the batch is counted"


def test_more_outputs_than_columns_are_refused() -> None:
    target = torch.zeros(1, 1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="5 outputs for 4 columns"):
        count(torch.tensor([[[0, 4]]]), target, 3, 5, count_void=True)
    assert count(torch.tensor([[[0, 4]]]), target, 3, 5).sum() == 2


def test_counts_exceed_the_integers_of_float32() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts += 2**24
    matrix.update(make_logits(torch.tensor([[[1]]]), 2), torch.tensor([[[0]]]))
    assert matrix.compute()[0, 1] == 2**24 + 1
    assert matrix.compute()[0, 0] == 2**24


def test_to_dict_has_no_nan() -> None:
    empty = Scores.from_confusion_matrix(torch.zeros(2, 2, dtype=torch.int64), 2)
    assert empty.to_dict(("a", "b")) == {
        "miou": None, "class_accuracy": None, "pixel_accuracy": None, "iou": {"a": None, "b": None},
    }  # fmt: skip
    with pytest.raises(ValueError, match="zip"):
        empty.to_dict(("a", "b", "c"))


def test_constant_class_by_hand() -> None:
    """6, 3 and 1 pixels: always predicting the first gives 6/10, 0 and 0; absent classes do not count."""
    matrix = torch.tensor([[1, 5, 0, 0], [0, 0, 3, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert constant_class_miou(matrix) == pytest.approx(0.6 / 3)
    target = torch.tensor([[[0] * 6 + [1] * 3 + [2]]])
    always = Scores.from_confusion_matrix(count(torch.zeros_like(target), target, 4, 4), 4)
    assert constant_class_miou(matrix) == pytest.approx(always.miou)
    assert math.isnan(constant_class_miou(torch.zeros(2, 2)))
