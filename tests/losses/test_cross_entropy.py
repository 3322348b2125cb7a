"""Cross-entropy against values by hand, PyTorch's own and the authors'."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.cross_entropy import CrossEntropy
from segkd.types import IGNORE_INDEX, Step
from tests.helpers.steps import make_step_from_maps

# Two classes, three pixels in a row: probabilities of class 0 are 1/2, 3/4 and 1/5.
SCORES = torch.tensor([[[[0.0, log(3), 0.0]], [[0.0, 0.0, log(4)]]]])


def step_for(scores: Tensor, target: Tensor, auxiliary: Tensor | None = None) -> Step:
    step = make_step_from_maps(scores, scores, target=target)
    if auxiliary is not None:
        step.student.features["auxiliary"] = auxiliary
    return step._replace(teacher=None)


def test_by_hand() -> None:
    target = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    value = CrossEntropy()(step_for(SCORES, target))
    assert value.item() == pytest.approx((log(2) + log(4)) / 2)


def test_side_head_by_hand() -> None:
    target = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    side = torch.tensor([[[[log(9), 0.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    step = step_for(SCORES, target, side)
    head = (log(10 / 9) + log(2)) / 2
    assert CrossEntropy()(step).item() == pytest.approx((log(2) + log(4)) / 2 + 0.4 * head)
    assert CrossEntropy(auxiliary_weight=0)(step).item() == pytest.approx((log(2) + log(4)) / 2)


def test_void_as_a_class_by_hand() -> None:
    """Three outputs, the last is void; of four pixels one is void and one is padding."""
    scores = torch.zeros(1, 3, 1, 4)
    scores[0, 2, 0, 1] = log(6)
    target = torch.tensor([[[0, IGNORE_INDEX, IGNORE_INDEX, 1]]])
    step = step_for(scores, target)
    step = step._replace(batch=step.batch._replace(valid=torch.tensor([[[True, True, False, True]]])))
    assert CrossEntropy(void="class")(step).item() == pytest.approx((2 * log(3) + log(8 / 6)) / 3)
    assert CrossEntropy()(step).item() == pytest.approx(log(3))
    with pytest.raises(ValueError, match="void is 'ignored' or 'class', not 'counted'"):
        CrossEntropy(void="counted")


def test_class_weights_by_hand() -> None:
    """Σ w·ce / Σ w over labelled pixels: a factor common to all weights changes nothing, even where they sum to less than 1."""
    step = step_for(SCORES, torch.tensor([[[0, 1, IGNORE_INDEX]]]))
    expected = (1 * log(2) + 3 * log(4)) / 4
    for weights in ([1.0, 3.0], [0.01, 0.03]):
        assert CrossEntropy(class_weights=weights)(step).item() == pytest.approx(expected)
    assert CrossEntropy(class_weights=[5.0, 5.0])(step).item() == pytest.approx(CrossEntropy()(step).item())
    assert CrossEntropy()(step).item() != pytest.approx(expected)
    assert CrossEntropy(class_weights=[0.0, 3.0])(step_for(SCORES, torch.zeros(1, 1, 3, dtype=torch.int64))).item() == 0
    assert "class_weights" not in CrossEntropy(class_weights=[1.0, 3.0]).state_dict()
    with pytest.raises(ValueError, match="'enet' follow from labels; give numbers"):
        CrossEntropy(class_weights="enet")


def test_class_weights_of_the_side_head_and_of_many_classes() -> None:
    """As PyTorch's own."""
    scores, side = torch.randn(2, 5, 7, 9), torch.randn(2, 5, 7, 9)
    target = torch.randint(0, 5, (2, 7, 9))
    target[0, 1:] = IGNORE_INDEX
    weights = [0.2, 3.0, 0.0, 1.0, 7.0]
    heads = [F.cross_entropy(s, target, torch.tensor(weights), ignore_index=IGNORE_INDEX) for s in (scores, side)]
    value = CrossEntropy(class_weights=weights)(step_for(scores, target, side))
    torch.testing.assert_close(value, heads[0] + 0.4 * heads[1])


def test_hard_pixels_by_hand() -> None:
    """Probabilities of the label: 1/2, 1/4, 3/4 and void; below 0.6 are two, and below 0.1 none but the hardest of each image."""
    scores = torch.cat([SCORES, torch.zeros(1, 2, 1, 1)], 3)
    scores[0, 0, 0, 2] = log(3) + log(4)  # of class 0 against class 1's log 4: 3/4
    step = step_for(scores, torch.tensor([[[0, 1, 0, IGNORE_INDEX]]]))
    assert CrossEntropy(ohem=0.6)(step).item() == pytest.approx((log(2) + log(4)) / 2)
    assert CrossEntropy(ohem=0.1)(step).item() == pytest.approx(log(4))
    assert CrossEntropy(ohem=1.0)(step).item() == pytest.approx(CrossEntropy()(step).item())
    assert CrossEntropy(ohem=0.6, class_weights=[1.0, 3.0])(step).item() == pytest.approx((log(2) + 3 * log(4)) / 4)
    easy = step._replace(batch=step.batch._replace(target=torch.full((1, 1, 4), IGNORE_INDEX)))
    assert CrossEntropy(ohem=0.6)(easy).item() == 0
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"ohem is a probability, above 0 and at most 1, or null, not {wrong}"):
            CrossEntropy(ohem=wrong)


def test_of_pixels_that_are_equally_easy_a_sixteenth_counts() -> None:
    """A thousand of which one is wrong, and all others are certain: their loss is 0 in float32."""
    scores = torch.zeros(1, 2, 25, 40)
    scores[:, 0] = 30
    target = torch.zeros(1, 25, 40, dtype=torch.int64)
    target[0, 3, 4] = 1
    assert CrossEntropy(ohem=0.7)(step_for(scores, target)).item() == pytest.approx(30 / 63)


def test_hard_pixels_with_void_as_a_class_and_a_side_head() -> None:
    """Void is a class like others, padding is not; each head has its own hard pixels."""
    scores, side = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    scores[0, 0, 0, 0] = side[0, 2, 0, 1] = log(18)  # probability 0.9: of the first pixel's class, and of void
    target = torch.tensor([[[0, IGNORE_INDEX, IGNORE_INDEX, 1]]])
    step = step_for(scores, target, side)
    step = step._replace(batch=step.batch._replace(valid=torch.tensor([[[True, True, False, True]]])))
    value = CrossEntropy(void="class", ohem=0.7)(step)
    assert value.item() == pytest.approx(log(3) + 0.4 * log(3))  # void and class 1; class 0 and class 1
    assert CrossEntropy(void="class")(step).item() < value.item()


def test_hard_pixels_are_of_each_image() -> None:
    """A sixteenth of each image's labelled pixels, rounded up, however hard those of another are; as a loop has it."""
    scores, target = torch.randn(2, 5, 8, 9, dtype=torch.float64), torch.randint(0, 5, (2, 8, 9))
    scores[1] *= 20
    target[0, 3:] = IGNORE_INDEX
    each = F.cross_entropy(scores, target, ignore_index=IGNORE_INDEX, reduction="none")
    hardest = [
        image[label != IGNORE_INDEX].sort(descending=True).values for image, label in zip(each, target, strict=True)
    ]
    counted = torch.cat([hardest[0][:2], hardest[1][:5]])  # of 27 and of 72
    bar = -log(1e-30)
    assert not any((h[n:] > bar).any() for h, n in zip(hardest, (2, 5), strict=True))
    value = CrossEntropy(ohem=1e-30)(step_for(scores, target))
    torch.testing.assert_close(value, counted.mean())
    alone = [CrossEntropy(ohem=1e-30)(step_for(scores[i : i + 1], target[i : i + 1])) for i in (0, 1)]
    torch.testing.assert_close(value, (2 * alone[0] + 5 * alone[1]) / 7)


def test_mean_is_over_labelled_pixels() -> None:
    """One image is mostly void: every labelled pixel weighs the same, whichever image it is in."""
    scores = torch.randn(2, 5, 7, 9)
    target = torch.randint(0, 5, (2, 7, 9))
    target[0, 1:] = IGNORE_INDEX
    value = CrossEntropy()(step_for(scores, target))
    torch.testing.assert_close(value, F.cross_entropy(scores, target, ignore_index=IGNORE_INDEX))
    wrong = F.cross_entropy(scores, target, ignore_index=IGNORE_INDEX, reduction="none").mean()
    assert (value - wrong).abs() > 0.1


@pytest.mark.parametrize("align_corners", [True, False])
def test_scores_are_enlarged_as_the_network_says(align_corners: bool) -> None:
    scores = torch.randn(1, 3, 4, 5)
    target = torch.randint(0, 3, (1, 13, 17))
    step = step_for(scores, target)
    step = step._replace(student=step.student._replace(align_corners=align_corners))
    enlarged = [
        F.interpolate(scores, (13, 17), mode="bilinear", align_corners=a) for a in (align_corners, not align_corners)
    ]
    value = CrossEntropy()(step)
    torch.testing.assert_close(value, F.cross_entropy(enlarged[0], target))
    assert not torch.isclose(value, F.cross_entropy(enlarged[1], target))


@pytest.mark.published
def test_authors_values(published_files: Path) -> None:
    """Value and gradients are those of the authors' CriterionDSN."""
    golden = np.load(published_files / "golden" / "skd_dsn_ce.npz")
    scores, side = (torch.from_numpy(golden[name]).double().requires_grad_() for name in ("S0", "S1"))
    step = step_for(scores, torch.from_numpy(golden["labels"]), side)

    def agrees(auxiliary_weight: float) -> bool:
        value = CrossEntropy(auxiliary_weight=auxiliary_weight)(step)
        ours = (value, *torch.autograd.grad(value, (scores, side)))
        theirs = (golden[f"{name}_f64"] for name in ("value", "gradS0", "gradS1"))
        return all(np.allclose(a.detach(), b, rtol=1e-5, atol=1e-8) for a, b in zip(ours, theirs, strict=True))

    assert agrees(0.4)
    assert not agrees(0.41)
