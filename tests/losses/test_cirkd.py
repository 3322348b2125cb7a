"""CIRKD's mini-batch term against the paper's formula in float64, by hand, and against its own faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.losses.cirkd import CIRKD, pooling_size
from segkd.types import FeatureInfo, Step
from tests.helpers.numerical_gradients import slopes
from tests.helpers.steps import make_step, make_step_from_maps

Array = np.ndarray


def nodes_of(maps: Array, valid: Array, side: int) -> list[Array]:
    """For each image the mean features of the squares that hold a place that counts, n C."""
    _, _, height, width = maps.shape
    squares = [(slice(y, y + side), slice(x, x + side)) for y in range(0, height, side) for x in range(0, width, side)]
    return [
        np.array([image[:, y, x][:, there[y, x]].mean(1) for y, x in squares if there[y, x].any()])
        for image, there in zip(maps, valid, strict=True)
    ]


def paper(student: Array, teacher: Array, valid: Array, temperature: float, side: int = 1) -> float:
    """Mean over ordered pairs of images and the places of the first of KL(p ‖ q), place by place."""

    def likeness(place: Array, others: Array) -> Array:
        cosines = np.array([place @ other / np.sqrt((place @ place) * (other @ other)) for other in others])
        odds = np.exp(cosines / temperature)
        return odds / odds.sum()

    ours, theirs = nodes_of(student, valid, side), nodes_of(teacher, valid, side)
    divergences = []
    seen = [image for image, places in enumerate(ours) if len(places)]
    for m in seen:
        for n in seen:
            for place in range(len(ours[m])):
                p, q = likeness(theirs[m][place], theirs[n]), likeness(ours[m][place], ours[n])
                divergences.append(np.sum(p * np.log(p / q)))
    return float(np.mean(divergences))


def case() -> tuple[Step, Array, Array, Array]:
    """2 images of 5 against 6 channels at 3×4; padding is spread unevenly."""
    torch.manual_seed(0)
    student = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[0, 2] = False
    valid[1, :, 3] = False
    return make_step_from_maps(student, teacher, valid=valid), student.detach().numpy(), teacher.numpy(), valid.numpy()


@cache
def reference(temperature: float = 0.5, side: int = 1) -> tuple[float, Array]:
    """Value and gradient by the paper's formula."""
    _, student, teacher, valid = case()
    return paper(student, teacher, valid, temperature, side), slopes(
        lambda maps: paper(maps, teacher, valid, temperature, side), student
    )


def agrees(step: Step, value: Tensor, expected: tuple[float, Array]) -> tuple[bool, bool]:
    (gradient,) = torch.autograd.grad(value, step.student.features["encoder"])
    return np.isclose(value.item(), expected[0], rtol=1e-9), np.allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("temperature", "max_positions", "side"), [(0.5, 512, 1), (0.5, 4, 2), (0.1, 2, 3)])
def test_value_and_gradient_are_the_papers(temperature: float, max_positions: int, side: int) -> None:
    step, *_ = case()
    value = CIRKD(temperature=temperature, max_positions=max_positions)(step)
    assert agrees(step, value, reference(temperature, side)) == (True, True)


class ByHeart(CIRKD):
    """The formula once more, with a fault."""

    def __init__(self, **fault: object) -> None:
        super().__init__(temperature=0.5)
        self.fault = fault

    def _log_likeness(self, features: Tensor, counted: Tensor) -> Tensor:
        unit: Callable[[Tensor], Tensor] = self.fault.get("unit", F.normalize)  # type: ignore[assignment]
        units = unit(features)
        likeness = torch.einsum(self.fault.get("pairs", "mca,ncb->manb"), units, units) / self.temperature
        if self.fault.get("masked", True):
            likeness = likeness.masked_fill(~counted, -1e9)
        if self.fault.get("joint", False):
            return likeness.flatten(2).log_softmax(2).view_as(likeness)
        return likeness.log_softmax(self.fault.get("axis", 3))


def own_image(step: Step) -> Tensor:
    """Pairs of an image with itself alone."""
    parts = [make_step_from_maps(s[None], t[None], valid=v[None]) for s, t, v in of_images(step)]
    return torch.stack([CIRKD(temperature=0.5)(part) for part in parts]).mean()


def of_images(step: Step) -> zip[tuple[Tensor, Tensor, Tensor]]:
    assert step.teacher is not None
    return zip(step.student.features["encoder"], step.teacher.features["encoder"], step.batch.valid, strict=True)


FAULTS: dict[str, Callable[[Step], Tensor]] = {
    "the wrong axis": ByHeart(axis=1),
    "no normalisation": ByHeart(unit=lambda features: features),
    "normalised over places": ByHeart(unit=lambda features: F.normalize(features, dim=2)),
    "one softmax over all images": ByHeart(joint=True),
    "padding is compared with": ByHeart(masked=False),
    "each image with itself": own_image,
    "another temperature": CIRKD(temperature=0.6),
    "times the temperature's square": lambda step: 0.5**2 * CIRKD(temperature=0.5)(step),
    "a sum over the images": lambda step: 2 * CIRKD(temperature=0.5)(step),
    "padding counts": lambda step: CIRKD(temperature=0.5)(
        step._replace(batch=step.batch._replace(valid=torch.ones_like(step.batch.valid)))
    ),
}


def test_the_faults_differ_from_this_by_the_fault_alone() -> None:
    step, *_ = case()
    assert agrees(step, ByHeart()(step), reference()) == (True, True)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str) -> None:
    step, *_ = case()
    assert agrees(step, FAULTS[fault](step), reference()) == (False, False)


def test_by_hand() -> None:
    """To the student the two places are at right angles, to the teacher alike: p = (½, ½), q = (e, 1)/(e + 1)."""
    student, teacher = torch.eye(2).view(1, 2, 1, 2), torch.ones(1, 1, 1, 2)
    q = np.array([np.e, 1]) / (np.e + 1)
    value = CIRKD(temperature=1.0)(make_step_from_maps(student, teacher))
    assert value.item() == pytest.approx(0.5 * np.log(0.5 / q).sum())


@pytest.mark.parametrize(
    ("size", "max_positions", "side"), [((64, 128), 512, 4), ((65, 129), 512, 5), ((6, 8), 512, 1)]
)
def test_the_matrix_is_bounded(size: tuple[int, int], max_positions: int, side: int) -> None:
    assert pooling_size(size, max_positions) == side
    assert -(-size[0] // side) * -(-size[1] // side) <= max_positions


def test_an_image_of_padding_alone_changes_nothing() -> None:
    step, *_ = case()
    valid = torch.cat([step.batch.valid, torch.zeros(1, 3, 4, dtype=torch.bool)])
    assert step.teacher is not None
    student, teacher = (
        torch.cat([maps.features["encoder"], torch.randn(1, maps.features["encoder"].shape[1], 3, 4)])
        for maps in (step.student, step.teacher)
    )
    torch.testing.assert_close(CIRKD()(make_step_from_maps(student, teacher, valid=valid)), CIRKD()(step))


def test_other_images_matter() -> None:
    """What tells it from the pair-wise loss: a change of one image changes the gradient of another."""
    step, _, teacher, valid = case()
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
    with pytest.raises(ValueError, match="places must be 1 or more, not 0"):
        CIRKD(max_positions=0)
    with pytest.raises(UserError, match="the student has no feature 'middle'; it has encoder"):
        CIRKD(feature="middle").setup({"encoder": FeatureInfo(3, 8)}, {"encoder": FeatureInfo(3, 8)})
    with pytest.raises(ValueError, match="the step has none"):
        CIRKD()(make_step()._replace(teacher=None))
