"""CIRKD's mini-batch term against the paper's formula in float64, by hand, and against faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.check_part.steps import make_step, make_step_from_maps
from segkd.errors import UserError
from segkd.losses import cirkd
from segkd.losses.cirkd import CIRKD, choose_pooling_size
from segkd.types import FeatureInfo, Step
from tests.helpers.loss_references import compute_cirkd
from tests.helpers.numerical_gradients import compute_numerical_gradient

Array = np.ndarray


def make_padded_step() -> tuple[Step, Array, Array, Array]:
    """Return a step of 2 images of 5 against 6 channels at 3×4, padded unevenly, with its maps and mask."""
    torch.manual_seed(0)
    student = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[0, 2] = False
    valid[1, :, 3] = False
    return make_step_from_maps(student, teacher, valid=valid), student.detach().numpy(), teacher.numpy(), valid.numpy()


@cache
def compute_reference(temperature: float = 0.5, side: int = 1) -> tuple[float, Array]:
    """Return value and gradient by the paper's formula."""
    _, student, teacher, valid = make_padded_step()
    return compute_cirkd(student, teacher, valid, temperature, side), compute_numerical_gradient(
        lambda maps: compute_cirkd(maps, teacher, valid, temperature, side), student
    )


def compare(step: Step, value: Tensor, expected: tuple[float, Array]) -> tuple[bool, bool]:
    """Return whether value and gradient are as expected."""
    (gradient,) = torch.autograd.grad(value, step.student.features["encoder"])
    return np.isclose(value.item(), expected[0], rtol=1e-9), np.allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("temperature", "max_positions", "side"), [(0.5, 512, 1), (0.5, 4, 2), (0.1, 2, 3)])
def test_value_and_gradient_equal_the_paper(temperature: float, max_positions: int, side: int) -> None:
    step, *_ = make_padded_step()
    value = CIRKD(temperature=temperature, max_positions=max_positions)(step)
    assert compare(step, value, compute_reference(temperature, side)) == (True, True)


class FaultyCIRKD(CIRKD):
    """The same formula, with a fault."""

    def __init__(self, **fault: object) -> None:
        super().__init__(temperature=0.5)
        self.fault = fault

    def forward(self, step: Step) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cirkd, "_log_similarity", self._log_similarity)
            return super().forward(step)

    def _log_similarity(self, features: Tensor, valid: Tensor, temperature: float) -> Tensor:
        normalize: Callable[[Tensor], Tensor] = self.fault.get("normalize", F.normalize)  # type: ignore[assignment]
        units = normalize(features)
        similarity = torch.einsum("mca,ncb->manb", units, units) / temperature
        if self.fault.get("masked", True):
            similarity = similarity.masked_fill(~valid, -1e9)
        if self.fault.get("joint", False):
            return similarity.flatten(2).log_softmax(2).view_as(similarity)
        return similarity.log_softmax(self.fault.get("axis", 3))


def compare_each_image_with_itself(step: Step) -> Tensor:
    assert step.teacher is not None
    images = zip(step.student.features["encoder"], step.teacher.features["encoder"], step.batch.valid, strict=True)
    steps = [make_step_from_maps(s[None], t[None], valid=v[None]) for s, t, v in images]
    return torch.stack([CIRKD(temperature=0.5)(step) for step in steps]).mean()


FAULTS: dict[str, Callable[[Step], Tensor]] = {
    "the wrong axis": FaultyCIRKD(axis=1),
    "no normalization": FaultyCIRKD(normalize=lambda features: features),
    "normalized over positions": FaultyCIRKD(normalize=lambda features: F.normalize(features, dim=2)),
    "one softmax over all images": FaultyCIRKD(joint=True),
    "padding is compared with": FaultyCIRKD(masked=False),
    "each image with itself": compare_each_image_with_itself,
    "another temperature": CIRKD(temperature=0.6),
    "times the squared temperature": lambda step: 0.5**2 * CIRKD(temperature=0.5)(step),
    "a sum over the images": lambda step: 2 * CIRKD(temperature=0.5)(step),
    "padding counts": lambda step: CIRKD(temperature=0.5)(
        step._replace(batch=step.batch._replace(valid=torch.ones_like(step.batch.valid)))
    ),
}


def test_without_a_fault_the_faulty_loss_equals_the_paper() -> None:
    step, *_ = make_padded_step()
    assert compare(step, FaultyCIRKD()(step), compute_reference()) == (True, True)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_detected(fault: str) -> None:
    step, *_ = make_padded_step()
    assert compare(step, FAULTS[fault](step), compute_reference()) == (False, False)


def test_value_by_hand() -> None:
    """The student's two positions are orthogonal, the teacher's equal: p = (½, ½), q = (e, 1)/(e + 1)."""
    student, teacher = torch.eye(2).view(1, 2, 1, 2), torch.ones(1, 1, 1, 2)
    q = np.array([np.e, 1]) / (np.e + 1)
    value = CIRKD(temperature=1.0)(make_step_from_maps(student, teacher))
    assert value.item() == pytest.approx(0.5 * np.log(0.5 / q).sum())


@pytest.mark.parametrize(
    ("size", "max_positions", "side"), [((64, 128), 512, 4), ((65, 129), 512, 5), ((6, 8), 512, 1)]
)
def test_number_of_positions_is_bounded(size: tuple[int, int], max_positions: int, side: int) -> None:
    assert choose_pooling_size(size, max_positions) == side
    assert -(-size[0] // side) * -(-size[1] // side) <= max_positions


def test_entirely_padded_image_changes_nothing() -> None:
    step, *_ = make_padded_step()
    valid = torch.cat([step.batch.valid, torch.zeros(1, 3, 4, dtype=torch.bool)])
    assert step.teacher is not None
    student, teacher = (
        torch.cat([output.features["encoder"], torch.randn(1, output.features["encoder"].shape[1], 3, 4)])
        for output in (step.student, step.teacher)
    )
    torch.testing.assert_close(CIRKD()(make_step_from_maps(student, teacher, valid=valid)), CIRKD()(step))


def test_gradient_depends_on_other_images() -> None:
    """Unlike the pair-wise loss: a change of one image changes the gradient of another."""
    step, _, teacher, valid = make_padded_step()
    (first,) = torch.autograd.grad(CIRKD()(step), step.student.features["encoder"])
    changed = step.student.features["encoder"].detach().clone()
    changed[1] += 1
    changed.requires_grad_()
    again = make_step_from_maps(changed, torch.from_numpy(teacher), valid=torch.from_numpy(valid))
    (second,) = torch.autograd.grad(CIRKD()(again), changed)
    assert (first[0] - second[0]).abs().max() > 1e-3


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        CIRKD(temperature=0)
    with pytest.raises(ValueError, match="max_positions must be 1 or more, not 0"):
        CIRKD(max_positions=0)
    with pytest.raises(UserError, match="the student has no feature 'middle'; it has encoder"):
        CIRKD(feature="middle").setup({"encoder": FeatureInfo(3, 8)}, {"encoder": FeatureInfo(3, 8)})
    with pytest.raises(ValueError, match="the step has none"):
        CIRKD()(make_step()._replace(teacher=None))
