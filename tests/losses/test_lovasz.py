"""Lovász-Softmax against IoU itself, the definition over sets in float64, and faults put into the source."""

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

from segkd.losses import lovasz
from segkd.losses.lovasz import Lovasz
from segkd.types import IGNORE_INDEX, Step
from tests.helpers.steps import make_step_from_maps

K = 4


def step() -> Step:
    """Three images of 4×5: one without class 3 and with void, one with all, one without labels."""
    g = torch.Generator().manual_seed(5)
    scores = torch.randn(3, K, 4, 5, generator=g, dtype=torch.float64)
    target = torch.randint(0, K, (3, 4, 5), generator=g)
    target[0] %= 3
    scores.scatter_add_(1, target[:, None], torch.full((3, 1, 4, 5), 1.5, dtype=torch.float64))  # half right already
    scores.requires_grad_()
    target[0, 0, :3] = IGNORE_INDEX
    target[2] = IGNORE_INDEX
    return make_step_from_maps(scores, scores.detach(), target=target)._replace(teacher=None)


def jaccard_loss(truth: set[int], wrong: set[int]) -> float:
    """Of a prediction that is wrong at some pixels: 1 − |truth ∩ said| / |truth ∪ said|."""
    said = truth ^ wrong
    return 1 - len(truth & said) / len(truth | said) if truth | said else 0.0


def reference(scores: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    """Berman et al., 2018, equations 8 to 11: from the set of no error to that of all, the greatest first."""
    of_images = []
    for image, labels in zip(scores, target, strict=True):
        places = [i for i, label in enumerate(labels.flat) if label != IGNORE_INDEX]
        if not places:
            continue
        powers = np.exp(image.reshape(len(image), -1))
        probability = powers / powers.sum(0)
        of_classes = []
        for c in sorted({labels.flat[i] for i in places}):
            truth = {i for i in places if labels.flat[i] == c}
            errors = {i: 1 - probability[c, i] if i in truth else probability[c, i] for i in places}
            order = sorted(places, key=lambda i: -errors[i])
            sets = [set(order[:n]) for n in range(len(order) + 1)]
            rises = [jaccard_loss(truth, after) - jaccard_loss(truth, before) for before, after in pairwise(sets)]
            of_classes.append(sum(errors[i] * rise for i, rise in zip(order, rises, strict=True)))
        of_images.append(np.mean(of_classes))
    return float(np.mean(of_images))


def check(loss: Lovasz) -> None:
    given = step()
    scores, target = given.student.logits.detach().numpy(), given.batch.target.numpy()
    value = loss(given)
    assert value.item() == pytest.approx(reference(scores, target), rel=1e-9)
    (ours,) = torch.autograd.grad(value, given.student.logits)
    slope, h = np.zeros_like(scores), 1e-6
    for index in np.ndindex(scores.shape):
        aside = np.zeros_like(scores)
        aside[index] = h
        slope[index] = (reference(scores + aside, target) - reference(scores - aside, target)) / (2 * h)
    np.testing.assert_allclose(ours, slope, rtol=1e-4, atol=1e-8)
    for nowhere in (ours[0, :, 0, :3], ours[2]):
        assert (nowhere == 0).all()


def test_value_and_gradient_are_those_of_the_paper() -> None:
    check(Lovasz())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("enlarged.softmax(1)", "enlarged.softmax(2)"),
        (".masked_fill(~counted, -1)", ""),
        ("descending=True", "descending=False"),
        ("truth.gather(2, order)", "truth"),
        ("(losses * present)", "losses"),
        ("present.sum(1)", "present.shape[1] + 0 * present.sum(1)"),
        ("present.any(1).sum()", "torch.tensor(len(present))"),
        ("size - truth.cumsum(2)", "truth.cumsum(2)"),
        ("(counted.to(truth) - truth)", "counted.to(truth)"),
        ("-torch.diff(iou, dim=2, prepend=torch.ones_like(iou[..., :1]))", "1 - iou"),
    ],
)
def test_faults_are_found(right: str, wrong: str) -> None:
    source = inspect.getsource(lovasz)
    assert right in source
    faulty = ModuleType("faulty")
    exec(source.replace(right, wrong), faulty.__dict__)
    with pytest.raises(AssertionError):
        check(faulty.Lovasz())


def sure(said: Tensor) -> Tensor:
    """Scores of who is sure of these classes."""
    return 100 * torch.nn.functional.one_hot(said, 3).permute(0, 3, 1, 2).double()


def test_of_hard_answers_it_is_one_minus_iou() -> None:
    """Class 0: 2 right of 3, none false; class 1: 2 right of 2, one false; class 2 is neither there nor said."""
    target, said = torch.tensor([[[0, 0, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 1]]])
    value = Lovasz()(make_step_from_maps(sure(said), sure(said), target=target))
    assert value.item() == pytest.approx(1 - (2 / 3 + 2 / 3) / 2)
    assert Lovasz()(make_step_from_maps(sure(target), sure(target), target=target)).item() == pytest.approx(
        0, abs=1e-12
    )


def test_by_hand() -> None:
    """Two classes, two pixels of class 0 with probabilities 3/4 and 1/2 of it: the mean of 1/2 and 1/4."""
    scores = torch.tensor([[[[log(3.0), 0.0]], [[0.0, 0.0]]]])
    value = Lovasz()(make_step_from_maps(scores, scores, target=torch.tensor([[[0, 0]]])))
    assert value.item() == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_small_classes_of_large_images_keep_their_slope() -> None:
    """A hundred pixels among half a million, in float32 as in float64."""
    g = torch.Generator().manual_seed(0)
    target = torch.zeros(1, 512, 1024, dtype=torch.int64)
    target.view(-1)[torch.randperm(target.numel(), generator=g)[:100]] = 1
    exact = torch.randn(1, 2, 512, 1024, generator=g, dtype=torch.float64)
    slopes = []
    for scores in (exact, exact.float()):
        maps = scores.requires_grad_()
        slopes.append(
            torch.autograd.grad(Lovasz()(make_step_from_maps(maps, maps.detach(), target=target)), maps)[0].double()
        )
    assert (slopes[0] - slopes[1]).abs().sum() < 2e-4 * slopes[0].abs().sum()


def test_scores_are_enlarged_as_the_network_says() -> None:
    scores = torch.randn(1, 3, 4, 5)
    given = make_step_from_maps(scores, scores, target=torch.randint(0, 3, (1, 13, 17)))
    values = [Lovasz()(given._replace(student=given.student._replace(align_corners=a))) for a in (True, False)]
    enlarged = [given.student._replace(align_corners=a).logits_at((13, 17)) for a in (True, False)]
    fitting = [Lovasz()(given._replace(student=given.student._replace(logits=maps))) for maps in enlarged]
    torch.testing.assert_close(values, fitting)
    assert values[0] != values[1]


def test_it_sets_in_when_told() -> None:
    late, given = Lovasz(start_at=0.8), step()
    before = late(given._replace(progress=0.79))
    assert before == 0
    assert (torch.autograd.grad(before, given.student.logits)[0] == 0).all()
    assert late(given._replace(progress=0.8)) == Lovasz()(given) > 0
    with pytest.raises(ValueError, match="less than 1, not 1"):
        Lovasz(start_at=1)
