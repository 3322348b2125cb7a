"""For every distillation loss, an image without labels counts as the paper's formula says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.config.targets import resolve_target
from segkd.losses.base import Loss
from segkd.losses.cirkd import CIRKD
from segkd.losses.ifvd import IFVD
from segkd.types import IGNORE_INDEX, Step
from tests.helpers import memory_reference
from tests.helpers.loss_cases import (
    CASES,
    CLASSES,
    FEATURES,
    Case,
    get_module,
    get_projector,
    make_case_loss,
    make_padded_step,
)
from tests.helpers.loss_references import Array, Labels, Mask, compute_cirkd, compute_ifvd
from tests.helpers.losses import SPECS


class Formula(NamedTuple):
    """A loss, and its value by the paper's formula."""

    make_loss: Callable[[], Loss]
    """A new loss, set up, in float64."""
    teacher_channels: int
    compute: Callable[[Array, Array, Mask], float]
    """Of the student's and the teacher's maps, and the valid mask."""


def make_formula(case: Case) -> Formula:
    reference = partial(case.reference, **case.arguments, **get_projector(case))
    return Formula(partial(make_case_loss, case, get_module(case)), case.teacher_channels, reference)


def predict_classes(teacher: Array, valid: Mask) -> Labels:
    return np.where(valid, teacher.argmax(1), IGNORE_INDEX)


make_memory_loss = partial(memory_reference.make_memory_loss, CLASSES, memory_reference.CLASSES, class_source="teacher")


def compute_memory_reference(student: Array, teacher: Array, valid: Mask) -> float:
    target = torch.from_numpy(predict_classes(teacher, valid))
    step = make_step_from_maps(torch.from_numpy(student), torch.from_numpy(teacher), target=target)
    return memory_reference.compute_cirkd_memory(student, [step], make_memory_loss())


FORMULAS = {
    **{name: make_formula(case) for name, case in CASES.items() if name == case.name},
    "cirkd": Formula(partial(CIRKD, temperature=0.5), FEATURES, partial(compute_cirkd, temperature=0.5)),
    "ifvd": Formula(
        partial(IFVD, class_source="teacher"),
        CLASSES,
        lambda student, teacher, valid: compute_ifvd(student, teacher, predict_classes(teacher, valid)),
    ),
    "cirkd_memory": Formula(make_memory_loss, memory_reference.CLASSES, compute_memory_reference),
}


def make_half_labeled_step(teacher_channels: int) -> Step:
    """Make a step of two images, padded at one side; the first has no labels."""
    step, valid = make_padded_step(teacher_channels)
    assert step.teacher is not None
    student, teacher = step.student.logits.detach()[:2], step.teacher.logits[:2]
    return make_step_from_maps(student, teacher, valid=valid[:2], target=step.batch.target[:2])


@pytest.mark.parametrize(
    "name", [name for name, spec in SPECS.items() if resolve_target(spec["_target_"]).needs_teacher]
)
def test_unlabeled_image_counts(name: str) -> None:
    assert name in FORMULAS, (
        f"write the paper's formula of {name} into loss_references.py, and a case into loss_cases.py"
    )
    formula = FORMULAS[name]
    step = make_half_labeled_step(formula.teacher_channels)
    assert step.teacher is not None
    student, teacher = step.student.logits.numpy(), step.teacher.logits.numpy()

    def compute_both(valid: Tensor) -> tuple[float, float]:
        value = formula.make_loss()(step._replace(batch=step.batch._replace(valid=valid)))
        return value.item(), formula.compute(student, teacher, valid.numpy())

    value, expected = compute_both(step.batch.valid)
    assert value == pytest.approx(expected, rel=1e-9)

    labeled_value, labeled_expected = compute_both(step.batch.valid & (step.batch.target != IGNORE_INDEX))
    assert labeled_value == pytest.approx(labeled_expected, rel=1e-9)
    assert labeled_value != pytest.approx(expected, rel=1e-2)  # the value if the unlabeled image did not count
