"""Cross-entropy against values by hand, PyTorch's own and the authors'."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.losses.cross_entropy import CrossEntropy
from segkd.types import IGNORE_INDEX, Step

# Two classes, three pixels in a row: probabilities of class 0 are 1/2, 3/4 and 1/5.
LOGITS = torch.tensor([[[[0.0, log(3), 0.0]], [[0.0, 0.0, log(4)]]]])


def make_step(logits: Tensor, target: Tensor, auxiliary: Tensor | None = None) -> Step:
    step = make_step_from_maps(logits, logits, target=target)
    if auxiliary is not None:
        step.student.features["auxiliary"] = auxiliary
    return step._replace(teacher=None)


def test_value_by_hand() -> None:
    target = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    value = CrossEntropy()(make_step(LOGITS, target))
    assert value.item() == pytest.approx((log(2) + log(4)) / 2)


def test_auxiliary_head_by_hand() -> None:
    target = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    auxiliary = torch.tensor([[[[log(9), 0.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    step = make_step(LOGITS, target, auxiliary)
    head = (log(10 / 9) + log(2)) / 2
    assert CrossEntropy()(step).item() == pytest.approx((log(2) + log(4)) / 2 + 0.4 * head)
    assert CrossEntropy(auxiliary_weight=0)(step).item() == pytest.approx((log(2) + log(4)) / 2)


def test_void_as_a_class_by_hand() -> None:
    """Three outputs, the last is void; of four pixels one is void and one is padded."""
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 2, 0, 1] = log(6)
    target = torch.tensor([[[0, IGNORE_INDEX, IGNORE_INDEX, 1]]])
    step = make_step(logits, target)
    step = step._replace(batch=step.batch._replace(valid=torch.tensor([[[True, True, False, True]]])))
    assert CrossEntropy(void="class")(step).item() == pytest.approx((2 * log(3) + log(8 / 6)) / 3)
    assert CrossEntropy()(step).item() == pytest.approx(log(3))
    with pytest.raises(ValueError, match="void is 'ignored' or 'class', not 'counted'"):
        CrossEntropy(void="counted")


def test_class_weights_by_hand() -> None:
    """Σ w·ce / Σ w over labeled pixels: a common factor of all weights changes nothing, even where they sum to less than 1."""
    step = make_step(LOGITS, torch.tensor([[[0, 1, IGNORE_INDEX]]]))
    expected = (1 * log(2) + 3 * log(4)) / 4
    for weights in ([1.0, 3.0], [0.01, 0.03]):
        assert CrossEntropy(class_weights=weights)(step).item() == pytest.approx(expected)
    assert CrossEntropy(class_weights=[5.0, 5.0])(step).item() == pytest.approx(CrossEntropy()(step).item())
    assert CrossEntropy()(step).item() != pytest.approx(expected)
    assert (
        CrossEntropy(class_weights=[0.0, 3.0])(make_step(LOGITS, torch.zeros(1, 1, 3, dtype=torch.int64))).item() == 0
    )
    assert "class_weights" not in CrossEntropy(class_weights=[1.0, 3.0]).state_dict()
    with pytest.raises(ValueError, match="'enet' are computed from labels; give numbers"):
        CrossEntropy(class_weights="enet")


def test_class_weights_of_auxiliary_head_and_many_classes() -> None:
    """The values equal PyTorch's."""
    logits, auxiliary = torch.randn(2, 5, 7, 9), torch.randn(2, 5, 7, 9)
    target = torch.randint(0, 5, (2, 7, 9))
    target[0, 1:] = IGNORE_INDEX
    weights = [0.2, 3.0, 0.0, 1.0, 7.0]
    heads = [F.cross_entropy(s, target, torch.tensor(weights), ignore_index=IGNORE_INDEX) for s in (logits, auxiliary)]
    value = CrossEntropy(class_weights=weights)(make_step(logits, target, auxiliary))
    torch.testing.assert_close(value, heads[0] + 0.4 * heads[1])


def test_hard_pixels_by_hand() -> None:
    """Probabilities of the label: 1/2, 1/4, 3/4 and void; two are below 0.6, and none below 0.1 but the hardest of each image."""
    logits = torch.cat([LOGITS, torch.zeros(1, 2, 1, 1)], 3)
    logits[0, 0, 0, 2] = log(3) + log(4)  # of class 0 against class 1's log 4: 3/4
    step = make_step(logits, torch.tensor([[[0, 1, 0, IGNORE_INDEX]]]))
    assert CrossEntropy(ohem=0.6)(step).item() == pytest.approx((log(2) + log(4)) / 2)
    assert CrossEntropy(ohem=0.1)(step).item() == pytest.approx(log(4))
    assert CrossEntropy(ohem=1.0)(step).item() == pytest.approx(CrossEntropy()(step).item())
    assert CrossEntropy(ohem=0.6, class_weights=[1.0, 3.0])(step).item() == pytest.approx((log(2) + 3 * log(4)) / 4)
    void = step._replace(batch=step.batch._replace(target=torch.full((1, 1, 4), IGNORE_INDEX)))
    assert CrossEntropy(ohem=0.6)(void).item() == 0
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"ohem is a probability, above 0 and at most 1, or null, not {wrong}"):
            CrossEntropy(ohem=wrong)


def test_a_sixteenth_of_equally_easy_pixels_counts() -> None:
    """One pixel in a thousand is wrong, all others are certain: their loss is 0 in float32."""
    logits = torch.zeros(1, 2, 25, 40)
    logits[:, 0] = 30
    target = torch.zeros(1, 25, 40, dtype=torch.int64)
    target[0, 3, 4] = 1
    assert CrossEntropy(ohem=0.7)(make_step(logits, target)).item() == pytest.approx(30 / 63)


def test_hard_pixels_with_void_as_a_class_and_an_auxiliary_head() -> None:
    """Void is a class like others, padding is none; each head has its own hard pixels."""
    logits, auxiliary = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    logits[0, 0, 0, 0] = auxiliary[0, 2, 0, 1] = log(18)  # probability 0.9: of the first pixel's class, and of void
    target = torch.tensor([[[0, IGNORE_INDEX, IGNORE_INDEX, 1]]])
    step = make_step(logits, target, auxiliary)
    step = step._replace(batch=step.batch._replace(valid=torch.tensor([[[True, True, False, True]]])))
    value = CrossEntropy(void="class", ohem=0.7)(step)
    assert value.item() == pytest.approx(log(3) + 0.4 * log(3))  # void and class 1; class 0 and class 1
    assert CrossEntropy(void="class")(step).item() < value.item()


def test_hard_pixels_are_chosen_in_each_image() -> None:
    """A sixteenth of each image's labeled pixels, rounded up, whatever the losses in other images."""
    logits, target = torch.randn(2, 5, 8, 9, dtype=torch.float64), torch.randint(0, 5, (2, 8, 9))
    logits[1] *= 20
    target[0, 3:] = IGNORE_INDEX
    losses = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
    hardest = [
        image[label != IGNORE_INDEX].sort(descending=True).values for image, label in zip(losses, target, strict=True)
    ]
    expected = torch.cat([hardest[0][:2], hardest[1][:5]])  # of 27 and of 72
    threshold = -log(1e-30)
    assert not any((h[n:] > threshold).any() for h, n in zip(hardest, (2, 5), strict=True))
    value = CrossEntropy(ohem=1e-30)(make_step(logits, target))
    torch.testing.assert_close(value, expected.mean())
    alone = [CrossEntropy(ohem=1e-30)(make_step(logits[i : i + 1], target[i : i + 1])) for i in (0, 1)]
    torch.testing.assert_close(value, (2 * alone[0] + 5 * alone[1]) / 7)


def test_mean_is_over_labeled_pixels() -> None:
    """One image is mostly void: every labeled pixel has the same weight, whatever its image."""
    logits = torch.randn(2, 5, 7, 9)
    target = torch.randint(0, 5, (2, 7, 9))
    target[0, 1:] = IGNORE_INDEX
    value = CrossEntropy()(make_step(logits, target))
    torch.testing.assert_close(value, F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX))
    wrong = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none").mean()
    assert (value - wrong).abs() > 0.1


@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_enlarged_by_the_networks_convention(align_corners: bool) -> None:
    logits = torch.randn(1, 3, 4, 5)
    target = torch.randint(0, 3, (1, 13, 17))
    step = make_step(logits, target)
    step = step._replace(student=step.student._replace(align_corners=align_corners))
    enlarged = [
        F.interpolate(logits, (13, 17), mode="bilinear", align_corners=a) for a in (align_corners, not align_corners)
    ]
    value = CrossEntropy()(step)
    torch.testing.assert_close(value, F.cross_entropy(enlarged[0], target))
    assert not torch.isclose(value, F.cross_entropy(enlarged[1], target))


@pytest.mark.published
def test_values_equal_the_authors(published_files: Path) -> None:
    """Value and gradients are those of the authors' CriterionDSN."""
    golden = np.load(published_files / "golden" / "skd_dsn_ce.npz")
    logits, auxiliary = (torch.from_numpy(golden[name]).double().requires_grad_() for name in ("S0", "S1"))
    step = make_step(logits, torch.from_numpy(golden["labels"]), auxiliary)

    def is_equal(auxiliary_weight: float) -> bool:
        value = CrossEntropy(auxiliary_weight=auxiliary_weight)(step)
        values = (value, *torch.autograd.grad(value, (logits, auxiliary)))
        expected = (golden[f"{name}_f64"] for name in ("value", "gradS0", "gradS1"))
        return all(np.allclose(a.detach(), b, rtol=1e-5, atol=1e-8) for a, b in zip(values, expected, strict=True))

    assert is_equal(0.4)
    assert not is_equal(0.41)
