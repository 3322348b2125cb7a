"""Every comparison of two networks against its paper's formula: the value, its gradient, and faults that both would show."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.losses.base import Loss
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers import loss_references as references
from tests.helpers.steps import make_step_from_maps


class Case(NamedTuple):
    name: str
    kind: str
    reference: Callable[..., float]
    teacher_channels: int
    arguments: dict[str, Any] = {}
    """Of the loss and of its reference."""
    feature: str | None = None


CLASSES, FEATURES = 4, 7  # the student's width and another
CASES = {
    "pixelwise": Case("pixelwise", "Pixelwise", references.pixelwise, CLASSES, {"temperature": 2.0}),
    "pairwise": Case("pairwise", "Pairwise", references.pairwise, FEATURES, {"pooling": "mean"}),
    "pairwise of maxima": Case("pairwise", "Pairwise", references.pairwise, FEATURES, {"pooling": "max"}),
    "channelwise": Case("channelwise", "Channelwise", references.channelwise, CLASSES, {"temperature": 3.0}),
    "channelwise of features": Case(
        "channelwise", "Channelwise", references.channelwise, FEATURES, {"temperature": 3.0}, "encoder"
    ),
    "attention": Case("attention", "Attention", references.attention, FEATURES),
    "hint": Case("hint", "Hint", references.hint, FEATURES),
    "local": Case("local", "Local", references.local, FEATURES),
    "dist": Case("dist", "Dist", references.dist, CLASSES, {"inter": 0.7, "intra": 1.6}),
}

FAULTS = [
    ("pixelwise", "self.temperature**2 * ", ""),
    ("pixelwise", "ours / self.temperature, 1)", "ours / self.temperature, 2)"),
    ("pixelwise", "kl_div(log_q, log_p", "kl_div(log_p, log_q"),
    ("pixelwise", ".sum(1)", ".mean(1)"),
    ("pixelwise", "(divergence * counted).sum()", "divergence.sum()"),
    ("pairwise", "directions(pooled.flatten(2))", "pooled.flatten(2)"),
    ("pairwise", "flatten(2))", "flatten(2), dim=2)"),
    ("pairwise", ".square().sum()\n            return", ".sum()\n            return"),
    ("pairwise", "self._nodes(ours) * counted", "self._nodes(ours)"),
    ("pairwise", "- 2 * _gram", "- _gram"),
    ("pairwise of maxima", "max_pool2d", "avg_pool2d"),
    ("channelwise", "self.temperature**2 * ", ""),
    ("channelwise", ".flatten(2), 2)", ".flatten(2), 1)"),
    ("channelwise", "kl_div(log_q, log_p", "kl_div(log_p, log_q"),
    ("channelwise", " * ours.shape[1]", ""),
    ("channelwise", "counted.flatten(1).any(1).sum()", "torch.tensor(len(counted))"),
    ("channelwise", ".masked_fill(~counted[:, None], torch.finfo(maps.dtype).min)", ""),
    ("channelwise of features", "= self.projector(ours)", "= -self.projector(ours)"),
    ("attention", "features.square()", "features.abs()"),
    (
        "attention",
        "F.normalize((features.square().sum(1) * counted).flatten(1), dim=1)",
        "features.square().sum(1) * counted",
    ),
    ("attention", "flatten(1), dim=1", "flatten(1), dim=0"),
    ("attention", "sum(1) * counted", "sum(1)"),
    ("attention", "counted.flatten(1).any(1).sum()", "counted.sum()"),
    ("hint", ".square()", ".abs()"),
    ("hint", "sum(1) * counted", "sum(1)"),
    ("hint", "* theirs.shape[1]", "* ours.shape[1]"),
    ("hint", "- theirs", "+ theirs"),
    ("local", "directions(ours)", "ours"),
    ("local", "directions(theirs)", "directions(theirs, dim=2)"),
    ("local", ", (1, -1))", ")"),
    ("local", "one & other", "one"),
    ("local", "global_mean(total, pairs)", "total"),
    ("dist", "/ count", "* 0"),
    ("dist", "theirs.softmax(1)", "theirs.softmax(2)"),
    ("dist", "sum((0, 2, 3)", "sum((2, 3)"),
    ("dist", "(maps * weight).sum", "maps.sum"),
    ("dist", "intra.mean()", "intra.sum()"),
    ("dist", "self.inter * ", "self.intra * "),
    ("dist", ".sqrt()", ""),
]


def step_and_mask(teacher_channels: int) -> tuple[Step, Tensor]:
    """Three images of 5×6: of the first the right is padded, of the second the bottom, the third as a whole.

    The first has no labels.
    """
    g = torch.Generator().manual_seed(3)
    student, teacher = (
        torch.randn(3, channels, 5, 6, generator=g, dtype=torch.float64) for channels in (CLASSES, teacher_channels)
    )
    valid = torch.ones(3, 5, 6, dtype=torch.bool)
    valid[0, :, 4:] = False
    valid[1, 4:] = False
    valid[2] = False
    target = torch.zeros(3, 5, 6, dtype=torch.int64)
    target[0] = IGNORE_INDEX
    return make_step_from_maps(student.requires_grad_(), teacher, valid=valid, target=target), valid


def loss_of(case: Case, module: ModuleType) -> Loss:
    """A loss of a case, connected, in float64; what it draws is always the same."""
    torch.manual_seed(0)
    loss: Loss = getattr(module, case.kind)(**case.arguments, **({"feature": case.feature} if case.feature else {}))
    ours, theirs = FeatureInfo(CLASSES, 8), FeatureInfo(case.teacher_channels, 8)
    loss.setup({"kd_logits": ours, "encoder": ours}, {"kd_logits": theirs, "encoder": theirs})
    return loss.double()


def module_of(case: Case) -> ModuleType:
    return importlib.import_module(f"segkd.losses.{case.name}")


@cache
def expected(name: str) -> tuple[float, np.ndarray]:
    """Value of the reference, and its gradient by central differences."""
    case = CASES[name]
    step, valid = step_and_mask(case.teacher_channels)
    assert step.teacher is not None
    learned = {key.removesuffix(".weight"): w[:, :, 0, 0].numpy() for key, w in weights_of(case).items()}
    student, teacher = step.student.logits.detach().numpy(), step.teacher.logits.numpy()

    def at(maps: np.ndarray) -> float:
        return case.reference(maps, teacher, valid.numpy(), **case.arguments, **learned)

    gradient, h = np.zeros_like(student), 1e-5
    for index in np.ndindex(student.shape):
        aside = np.zeros_like(student)
        aside[index] = h
        gradient[index] = (at(student + aside) - at(student - aside)) / (2 * h)
    return at(student), gradient


def weights_of(case: Case) -> dict[str, Tensor]:
    return dict(loss_of(case, module_of(case)).state_dict())


def check(name: str, loss: Loss) -> None:
    step, _ = step_and_mask(CASES[name].teacher_channels)
    value, gradient = expected(name)
    ours = loss(step)
    np.testing.assert_allclose(ours.item(), value, rtol=1e-9)
    np.testing.assert_allclose(torch.autograd.grad(ours, step.student.logits)[0], gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_paper(name: str) -> None:
    check(name, loss_of(CASES[name], module_of(CASES[name])))


@pytest.mark.parametrize(("name", "right", "wrong"), FAULTS)
def test_faults_are_found(name: str, right: str, wrong: str) -> None:
    """Each fault is put into the source of the loss."""
    source = inspect.getsource(module_of(CASES[name]))
    assert right in source
    faulty = ModuleType("faulty")
    exec(source.replace(right, wrong), faulty.__dict__)
    with pytest.raises(AssertionError):
        check(name, loss_of(CASES[name], faulty))
