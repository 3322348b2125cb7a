"""To every loss that compares with a teacher, an image without labels is worth what the paper's formula says of its places."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from tests.losses import test_cirkd
from tests.losses import test_cirkd_memory
from tests.losses import test_ifvd
import torch
from numpy.typing import NDArray
from tests.losses.test_loss_contract import NODES
from tests.losses.test_references import CASES, CLASSES, FEATURES, Case, loss_of, module_of, step_and_mask, weights_of
from torch import Tensor

from segkd.config.instantiate import resolve_target
from segkd.losses.base import Loss
from segkd.losses.cirkd import CIRKD
from segkd.losses.cirkd_memory import CIRKDMemory
from segkd.losses.ifvd import IFVD
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers.steps import make_step_from_maps

Maps = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Formula(NamedTuple):
    loss: Callable[[], Loss]
    """Connected, in float64, and as new."""
    teacher_channels: int
    value: Callable[[Maps, Maps, Mask], float]
    """Of the student's and the teacher's maps, and the places that count."""


def of_case(case: Case) -> Formula:
    learned = {key.removesuffix(".weight"): w[:, :, 0, 0].numpy() for key, w in weights_of(case).items()}
    value = partial(case.reference, **case.arguments, **learned)
    return Formula(partial(loss_of, case, module_of(case)), case.teacher_channels, value)


def answered(teacher: Maps, valid: Mask) -> NDArray[np.int64]:
    """The class that the teacher gives each place."""
    return np.where(valid, teacher.argmax(1), IGNORE_INDEX)


def memory() -> CIRKDMemory:
    torch.manual_seed(0)
    loss = CIRKDMemory(
        temperature=test_cirkd_memory.TEMPERATURE,
        pixel_queue=test_cirkd_memory.PIXEL_QUEUE,
        region_queue=test_cirkd_memory.REGION_QUEUE,
        num_pixel_samples=test_cirkd_memory.CLASSES * test_cirkd_memory.PIXELS_DRAWN,
        num_region_samples=test_cirkd_memory.CLASSES * test_cirkd_memory.REGIONS_DRAWN,
        pixels_per_class=test_cirkd_memory.PUSHED,
        places=test_cirkd_memory.PLACES,
        class_source="teacher",
    )
    theirs = FeatureInfo(test_cirkd_memory.CLASSES, 8)
    loss.setup({"encoder": FeatureInfo(CLASSES, 8)}, {"encoder": theirs, "kd_logits": theirs})
    return loss.double()


def remembered(student: Maps, teacher: Maps, valid: Mask) -> float:
    target = torch.from_numpy(answered(teacher, valid))
    step = make_step_from_maps(torch.from_numpy(student), torch.from_numpy(teacher), target=target)
    return test_cirkd_memory.paper(student, [step], memory())


FORMULAS = {
    **{name: of_case(case) for name, case in CASES.items() if name == case.name},
    "cirkd": Formula(partial(CIRKD, temperature=0.5), FEATURES, lambda *maps: test_cirkd.paper(*maps, temperature=0.5)),
    "ifvd": Formula(
        partial(IFVD, class_source="teacher"),
        CLASSES,
        lambda student, teacher, valid: test_ifvd.paper(student, teacher, answered(teacher, valid)),
    ),
    "cirkd_memory": Formula(memory, test_cirkd_memory.CLASSES, remembered),
}


def half_labelled(teacher_channels: int) -> Step:
    """Two images that are padded at one side; the first has no labels."""
    step, valid = step_and_mask(teacher_channels)
    assert step.teacher is not None
    student, teacher = step.student.logits.detach()[:2], step.teacher.logits[:2]
    return make_step_from_maps(student, teacher, valid=valid[:2], target=step.batch.target[:2])


@pytest.mark.parametrize("name", [name for name, node in NODES.items() if resolve_target(node).needs_teacher])
def test_an_unlabelled_image_counts_as_the_formula_says(name: str) -> None:
    assert name in FORMULAS, (
        f"write the paper's formula of {name} into references.py, and a case into test_references.py"
    )
    formula = FORMULAS[name]
    step = half_labelled(formula.teacher_channels)
    assert step.teacher is not None
    student, teacher = step.student.logits.numpy(), step.teacher.logits.numpy()

    def both(counted: Tensor) -> tuple[float, float]:
        value = formula.loss()(step._replace(batch=step.batch._replace(valid=counted)))
        return value.item(), formula.value(student, teacher, counted.numpy())

    ours, expected = both(step.batch.valid)
    assert ours == pytest.approx(expected, rel=1e-9)

    labelled, expected_of_labelled = both(step.batch.valid & (step.batch.target != IGNORE_INDEX))
    assert labelled == pytest.approx(expected_of_labelled, rel=1e-9)
    assert labelled != pytest.approx(expected, rel=1e-2)  # what a loss would give that leaves the unlabelled image out
