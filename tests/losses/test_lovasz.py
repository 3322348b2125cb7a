"""Lovász-Softmax against IoU, its definition over sets in float64, and faults in the source."""

from __future__ import annotations

import inspect
from itertools import pairwise
from math import log
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.losses import lovasz
from segkd.losses.lovasz import Lovasz
from segkd.types import IGNORE_INDEX, Step
from tests.helpers.numerical_gradients import compute_numerical_gradient

K = 4


def make_step() -> Step:
    """Three images of 4×5: one without class 3 and with void, one with all, one without labels."""
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(3, K, 4, 5, generator=g, dtype=torch.float64)
    target = torch.randint(0, K, (3, 4, 5), generator=g)
    target[0] %= 3
    logits.scatter_add_(1, target[:, None], torch.full((3, 1, 4, 5), 1.5, dtype=torch.float64))  # half right already
    logits.requires_grad_()
    target[0, 0, :3] = IGNORE_INDEX
    target[2] = IGNORE_INDEX
    return make_step_from_maps(logits, logits.detach(), target=target)._replace(teacher=None)


def compute_jaccard_loss(truth: set[int], wrong: set[int]) -> float:
    """Return 1 − IoU of a prediction that is wrong at some pixels."""
    predicted = truth ^ wrong
    return 1 - len(truth & predicted) / len(truth | predicted) if truth | predicted else 0.0


def compute_reference(logits: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    """Berman et al., 2018, equations 8 to 11: from no error to all errors, the greatest first."""
    image_losses = []
    for image, labels in zip(logits, target, strict=True):
        positions = [i for i, label in enumerate(labels.flat) if label != IGNORE_INDEX]
        if not positions:
            continue
        powers = np.exp(image.reshape(len(image), -1))
        probability = powers / powers.sum(0)
        class_losses = []
        for c in sorted({labels.flat[i] for i in positions}):
            truth = {i for i in positions if labels.flat[i] == c}
            errors = {i: 1 - probability[c, i] if i in truth else probability[c, i] for i in positions}
            order = sorted(positions, key=lambda i: -errors[i])
            sets = [set(order[:n]) for n in range(len(order) + 1)]
            increments = [
                compute_jaccard_loss(truth, after) - compute_jaccard_loss(truth, before)
                for before, after in pairwise(sets)
            ]
            class_losses.append(sum(errors[i] * increment for i, increment in zip(order, increments, strict=True)))
        image_losses.append(np.mean(class_losses))
    return float(np.mean(image_losses))


def check_against_reference(loss: Lovasz) -> None:
    step = make_step()
    logits, target = step.student.logits.detach().numpy(), step.batch.target.numpy()
    value = loss(step)
    assert value.item() == pytest.approx(compute_reference(logits, target), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, step.student.logits)
    expected = compute_numerical_gradient(lambda maps: compute_reference(maps, target), logits, 1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-8)
    for void in (gradient[0, :, 0, :3], gradient[2]):
        assert (void == 0).all()


def test_value_and_gradient_equal_the_paper() -> None:
    check_against_reference(Lovasz())


@pytest.mark.parametrize(
    ("correct", "faulty"),
    [
        ("logits.softmax(1)", "logits.softmax(2)"),
        (".masked_fill(~valid, -1)", ""),
        ("descending=True", "descending=False"),
        ("one_hot.gather(2, order)", "one_hot"),
        ("(class_losses * present)", "class_losses"),
        ("present.sum(1)", "present.shape[1] + 0 * present.sum(1)"),
        ("present.any(1).sum()", "torch.tensor(len(present))"),
        ("size - one_hot.cumsum(2)", "one_hot.cumsum(2)"),
        ("(valid.to(one_hot) - one_hot)", "valid.to(one_hot)"),
        ("-torch.diff(iou, dim=2, prepend=torch.ones_like(iou[..., :1]))", "1 - iou"),
    ],
)
def test_faults_are_detected(correct: str, faulty: str) -> None:
    source = inspect.getsource(lovasz)
    assert correct in source
    module = ModuleType("faulty")
    exec(source.replace(correct, faulty), module.__dict__)
    with pytest.raises(AssertionError):
        check_against_reference(module.Lovasz())


def make_certain_logits(classes: Tensor) -> Tensor:
    """Return logits that predict these classes with certainty."""
    return 100 * torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).double()


def test_of_certain_predictions_it_is_one_minus_iou() -> None:
    """Class 0: 2 right of 3, none false; class 1: 2 right of 2, one false; class 2 neither occurs nor is predicted."""
    target, predicted = torch.tensor([[[0, 0, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 1]]])
    value = Lovasz()(make_step_from_maps(make_certain_logits(predicted), make_certain_logits(predicted), target=target))
    assert value.item() == pytest.approx(1 - (2 / 3 + 2 / 3) / 2)
    assert Lovasz()(
        make_step_from_maps(make_certain_logits(target), make_certain_logits(target), target=target)
    ).item() == pytest.approx(0, abs=1e-12)


def test_value_by_hand() -> None:
    """Two classes, two pixels of class 0 with probabilities 3/4 and 1/2 of it: the mean of 1/2 and 1/4."""
    logits = torch.tensor([[[[log(3.0), 0.0]], [[0.0, 0.0]]]])
    value = Lovasz()(make_step_from_maps(logits, logits, target=torch.tensor([[[0, 0]]])))
    assert value.item() == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_small_classes_of_large_images_keep_their_gradient() -> None:
    """A hundred pixels among half a million, in float32 as in float64."""
    g = torch.Generator().manual_seed(0)
    target = torch.zeros(1, 512, 1024, dtype=torch.int64)
    target.view(-1)[torch.randperm(target.numel(), generator=g)[:100]] = 1
    exact = torch.randn(1, 2, 512, 1024, generator=g, dtype=torch.float64)
    gradients = []
    for logits in (exact, exact.float()):
        maps = logits.requires_grad_()
        gradients.append(
            torch.autograd.grad(Lovasz()(make_step_from_maps(maps, maps.detach(), target=target)), maps)[0].double()
        )
    assert (gradients[0] - gradients[1]).abs().sum() < 2e-4 * gradients[0].abs().sum()


def test_logits_are_enlarged_by_the_networks_convention() -> None:
    logits = torch.randn(1, 3, 4, 5)
    step = make_step_from_maps(logits, logits, target=torch.randint(0, 3, (1, 13, 17)))
    values = [Lovasz()(step._replace(student=step.student._replace(align_corners=a))) for a in (True, False)]
    enlarged = [step.student._replace(align_corners=a).logits_at((13, 17)) for a in (True, False)]
    expected = [Lovasz()(step._replace(student=step.student._replace(logits=maps))) for maps in enlarged]
    torch.testing.assert_close(values, expected)
    assert values[0] != values[1]


def test_loss_is_zero_before_start_at() -> None:
    late, step = Lovasz(start_at=0.8), make_step()
    before = late(step._replace(progress=0.79))
    assert before == 0
    assert (torch.autograd.grad(before, step.student.logits)[0] == 0).all()
    assert late(step._replace(progress=0.8)) == Lovasz()(step) > 0
    with pytest.raises(ValueError, match="less than 1, not 1"):
        Lovasz(start_at=1)
