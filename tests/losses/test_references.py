"""Every comparison of two networks against its paper's formula: value, gradient, and faults that both must reveal."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch

from segkd.losses.base import Loss
from tests.helpers.loss_cases import CASES, get_module, get_projector, make_case_loss, make_padded_step
from tests.helpers.numerical_gradients import compute_numerical_gradient

FAULTS = [
    ("pixelwise", "temperature**2 * global_mean((divergence", "global_mean((divergence"),
    ("pixelwise", "F.log_softmax(student / temperature, 1)", "F.log_softmax(student / temperature, 2)"),
    ("pixelwise", 'kl_div(log_q, log_p, reduction="none"', 'kl_div(log_p, log_q, reduction="none"'),
    ("pixelwise", "log_target=True).sum(1)", "log_target=True).mean(1)"),
    ("pixelwise", "(divergence * valid).sum()", "divergence.sum()"),
    ("pairwise", "safe_normalize(maps.flatten(2))", "maps.flatten(2)"),
    ("pairwise", "safe_normalize(maps.flatten(2))", "safe_normalize(maps.flatten(2), dim=2)"),
    ("pairwise", "mask.sum((1, 2)).square().sum()", "mask.sum((1, 2)).sum()"),
    ("pairwise", "maps.flatten(2)) * mask for", "maps.flatten(2)) for"),
    ("pairwise", "- 2 * _sum_squared_products", "- _sum_squared_products"),
    ("pairwise with max pooling", "F.max_pool2d if", "F.avg_pool2d if"),
    ("channelwise", "temperature**2 * global_mean(divergence, channels)", "global_mean(divergence, channels)"),
    ("channelwise", "masked.flatten(2), 2)", "masked.flatten(2), 1)"),
    ("channelwise", 'kl_div(log_q, log_p, reduction="sum"', 'kl_div(log_p, log_q, reduction="sum"'),
    ("channelwise", "any(1).sum() * student.shape[1]", "any(1).sum()"),
    ("channelwise", "valid.flatten(1).any(1).sum() *", "torch.tensor(len(valid)) *"),
    ("channelwise", "maps.masked_fill(~valid[:, None], torch.finfo(maps.dtype).min)", "maps"),
    ("channelwise of features", "(self.projector(student)", "(-self.projector(student)"),
    ("attention", "maps.square().sum(1)", "maps.abs().sum(1)"),
    ("attention", "F.normalize((maps.square().sum(1) * valid).flatten(1), dim=1)", "(maps.square().sum(1) * valid)"),
    ("attention", "flatten(1), dim=1", "flatten(1), dim=0"),
    ("attention", "maps.square().sum(1) * valid", "maps.square().sum(1)"),
    ("attention", "valid.flatten(1).any(1).sum())", "valid.sum())"),
    ("hint", "difference.square()", "difference.abs()"),
    ("hint", "sum(1) * valid", "sum(1)"),
    ("hint", "* teacher.shape[1]", ""),
    ("hint", "student - teacher", "student + teacher"),
    ("local", "safe_normalize(student), safe", "student, safe"),
    ("local", "safe_normalize(teacher)\n", "safe_normalize(teacher, dim=2)\n"),
    ("local", ", (1, -1))", ")"),
    ("local", "first & second", "first"),
    ("local", "global_mean(total, pairs)", "total"),
    ("dist", "/ count", "* 0"),
    ("dist", "teacher_logits.softmax(1)", "teacher_logits.softmax(2)"),
    ("dist", "sum((0, 2, 3)", "sum((2, 3)"),
    ("dist", "(maps * mask).sum", "maps.sum"),
    ("dist", "intra_distance.mean()", "intra_distance.sum()"),
    ("dist", "return inter * ", "return intra * "),
    ("dist", ".sqrt()", ""),
]


@cache
def compute_reference(name: str) -> tuple[float, np.ndarray]:
    """Return the value of the paper's formula and its numerical gradient."""
    case = CASES[name]
    step, valid = make_padded_step(case.teacher_channels)
    assert step.teacher is not None
    projector = get_projector(case)
    student, teacher = step.student.logits.detach().numpy(), step.teacher.logits.numpy()

    def compute_value(maps: np.ndarray) -> float:
        return case.reference(maps, teacher, valid.numpy(), **case.arguments, **projector)

    return compute_value(student), compute_numerical_gradient(compute_value, student)


def check_against_reference(name: str, loss: Loss) -> None:
    step, _ = make_padded_step(CASES[name].teacher_channels)
    expected_value, expected_gradient = compute_reference(name)
    value = loss(step)
    np.testing.assert_allclose(value.item(), expected_value, rtol=1e-9)
    (gradient,) = torch.autograd.grad(value, step.student.logits)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_paper(name: str) -> None:
    check_against_reference(name, make_case_loss(CASES[name], get_module(CASES[name])))


@pytest.mark.parametrize(("name", "correct", "faulty"), FAULTS)
def test_faults_are_detected(name: str, correct: str, faulty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault is written into the source of the loss."""
    case = CASES[name]
    original = get_module(case)
    source = inspect.getsource(original)
    assert correct in source
    module = ModuleType(original.__name__)
    exec(source.replace(correct, faulty), module.__dict__)
    monkeypatch.setitem(sys.modules, original.__name__, module)
    with pytest.raises(AssertionError):
        check_against_reference(name, make_case_loss(case, module))
