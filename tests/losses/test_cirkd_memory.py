"""CIRKD's memory terms against the paper's formula in float64 with queues that are lists, and against their own faults."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.errors import UserError
from segkd.losses import cirkd_memory
from segkd.losses.cirkd_memory import CIRKDMemory, Queue
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers.numerical_gradients import slopes
from tests.helpers.steps import make_step_from_maps

Array = np.ndarray

CLASSES, TEMPERATURE = 3, 0.5
PIXEL_QUEUE, REGION_QUEUE, PIXELS_DRAWN, REGIONS_DRAWN, PUSHED, PLACES = 7, 3, 4, 2, 3, 5
"""Queues, what is drawn of a class, and what of an image: all of them overflow in two steps of `steps`."""


def connected(student: int = 5) -> CIRKDMemory:
    torch.manual_seed(1)
    loss = CIRKDMemory(
        temperature=TEMPERATURE,
        pixel_queue=PIXEL_QUEUE,
        region_queue=REGION_QUEUE,
        num_pixel_samples=CLASSES * PIXELS_DRAWN,
        num_region_samples=CLASSES * REGIONS_DRAWN - 2,  # shared evenly, and rounded up
        pixels_per_class=PUSHED,
        places=PLACES,
    )
    loss.setup(
        {"encoder": FeatureInfo(student, 8)}, {"encoder": FeatureInfo(6, 8), "kd_logits": FeatureInfo(CLASSES, 8)}
    )
    return loss.double()


def steps(count: int = 3) -> list[Step]:
    """Steps of 2 images of 5 against 6 channels at 3×4, with void and padding; the last class is rare."""
    torch.manual_seed(0)

    def step() -> Step:
        target = torch.randint(0, 2, (2, 3, 4))
        target[0, 0, 0], target[0, 2, :2] = 2, IGNORE_INDEX
        valid = torch.ones(2, 3, 4, dtype=torch.bool)
        valid[1, :, 3] = False
        student = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
        return make_step_from_maps(student, torch.randn(2, 6, 3, 4, dtype=torch.float64), target=target, valid=valid)

    return [step() for _ in range(count)]


def evenly(entries: list[Array], count: int) -> list[Array]:
    """All, or `count` in the middles of as many equal parts."""
    if len(entries) <= count:
        return entries
    return [entries[int((part + 0.5) * len(entries) / count)] for part in range(count)]


def unit(vector: Array) -> Array:
    return vector / np.sqrt(vector @ vector)


def paper(student: Array, seen: list[Step], loss: CIRKDMemory) -> float:
    """The value at the last of the steps, with these student's maps, and queues that saw the steps before it too."""
    pixels: dict[int, list[Array]] = {k: [] for k in range(CLASSES)}
    regions: dict[int, list[Array]] = {k: [] for k in range(CLASSES)}
    for step in seen:
        assert step.teacher is not None
        classes = step.batch.target.masked_fill(~step.batch.valid, IGNORE_INDEX).numpy()
        teacher = step.teacher.features["encoder"].numpy()
        for image in range(2):
            for k in range(CLASSES):
                units = [unit(teacher[image, :, y, x]) for y, x in np.argwhere(classes[image] == k)]
                if units:
                    pixels[k] = (pixels[k] + evenly(units, PUSHED))[-PIXEL_QUEUE:]
                    regions[k] = [*regions[k], unit(np.mean(units, axis=0))][-REGION_QUEUE:]
    places = [
        (image, y, x)
        for image in range(2)
        for y, x in evenly(list(np.argwhere(classes[image] != IGNORE_INDEX)), PLACES)
    ]
    first, second = (layer.weight.detach().numpy() for layer in (loss.projector[0], loss.projector[2]))  # type: ignore[index]

    def mean_divergence(queues: dict[int, list[Array]], drawn: int) -> float:
        remembered = np.array([entry for queue in queues.values() for entry in evenly(queue[::-1], drawn)])

        def likeness(vector: Array) -> Array:
            odds = np.exp(remembered @ unit(vector) / TEMPERATURE)
            return odds / odds.sum()

        found = []
        for image, y, x in places:
            p = likeness(teacher[image, :, y, x])
            q = likeness(second @ np.maximum(first @ student[image, :, y, x], 0))
            found.append(np.sum(p * np.log(p / q)))
        return float(np.mean(found))

    return mean_divergence(pixels, PIXELS_DRAWN) + mean_divergence(regions, REGIONS_DRAWN)


def maps_of(step: Step) -> Array:
    return step.student.features["encoder"].detach().numpy()


@cache
def reference() -> tuple[float, Array]:
    """Value and gradient at the third step by the paper's formula."""
    seen, loss = steps(), connected()
    value = paper(maps_of(seen[-1]), seen, loss)
    return value, slopes(lambda maps: paper(maps, seen, loss), maps_of(seen[-1]))


def agrees(loss: CIRKDMemory, seen: list[Step]) -> tuple[bool, bool]:
    for step in seen:
        value = loss(step)
    (gradient,) = torch.autograd.grad(value, seen[-1].student.features["encoder"])
    expected, slope = reference()
    return np.isclose(value.item(), expected, rtol=1e-9), np.allclose(gradient, slope, rtol=1e-5, atol=1e-8)


def test_value_and_gradient_are_the_papers() -> None:
    assert agrees(connected(), steps()) == (True, True)


def test_queues_overflow_in_the_reference() -> None:
    """Else it would not tell which entries are forgotten, and which are drawn."""
    loss = connected()
    for step in steps():
        loss(step)
    assert loss.pixel_memory.pushed[:2].min() > PIXEL_QUEUE > PIXELS_DRAWN
    assert loss.region_memory.pushed[:2].min() > REGION_QUEUE > REGIONS_DRAWN
    assert loss.pixel_memory.pushed[2] < PIXELS_DRAWN  # and here slots are empty


def without_temperature(self: CIRKDMemory, units: Tensor, remembered: Tensor, exist: Tensor) -> Tensor:
    return (units @ remembered.mT).masked_fill(~exist, -1e9).log_softmax(2)


def along_places(self: CIRKDMemory, units: Tensor, remembered: Tensor, exist: Tensor) -> Tensor:
    return (units @ remembered.mT / TEMPERATURE).masked_fill(~exist, -1e9).log_softmax(1)


def empty_slots_too(self: CIRKDMemory, units: Tensor, remembered: Tensor, exist: Tensor) -> Tensor:
    return (units @ remembered.mT / TEMPERATURE).log_softmax(2)


def from_the_first_slot(self: Queue, count: int) -> tuple[Tensor, Tensor]:
    return self.entries[:, :count].flatten(0, 1), self.entries[:, :count].any(2).flatten()


def newest_alone(self: Queue, count: int) -> tuple[Tensor, Tensor]:
    slots = (self.pixels_per_class[:, None] - 1 - torch.arange(count)) % self.entries.shape[1]
    entries = self.entries[torch.arange(CLASSES)[:, None], slots]
    return entries.flatten(0, 1), entries.any(2).flatten()


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (CIRKDMemory, "_log_likeness", without_temperature),
        (CIRKDMemory, "_log_likeness", along_places),
        (CIRKDMemory, "_log_likeness", empty_slots_too),
        (CIRKDMemory, "_remember", lambda self, features, classes: None),
        (Queue, "drawn", from_the_first_slot),
        (Queue, "drawn", newest_alone),
        (cirkd_memory, "directions", lambda maps, dim: maps),
        (cirkd_memory, "directions", lambda maps, dim: torch.nn.functional.normalize(maps, dim=1)),
        (cirkd_memory, "global_mean", lambda total, count: total),
    ],
)
def test_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fault: Callable[..., object]
) -> None:
    monkeypatch.setattr(owner, name, fault)
    assert agrees(connected(), steps()) == (False, False)


def test_equal_widths_need_no_projector() -> None:
    assert not list(connected(student=6).parameters())
    assert sum(p.numel() for p in connected().parameters()) == 5 * 6 + 6 * 6


def test_only_training_remembers() -> None:
    loss, (step, *_) = connected(), steps()
    loss.eval()
    assert loss(step) == 0  # nothing to compare with
    loss.train()
    loss(step._replace(repeat=1))
    assert not loss.pixel_memory.entries.any()
    loss(step)
    before = deepcopy(loss.state_dict())
    loss.eval()
    loss(step)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loss.state_dict().items())
    loss.train()
    loss(step)
    assert not torch.equal(before["pixel_memory.pushed"], loss.pixel_memory.pixels_per_class)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped() -> None:
    first, second, third = steps()
    straight = connected()
    for step in (first, second):
        straight(step)
    resumed, forgetful = connected(), connected()
    resumed.load_state_dict(straight.state_dict())
    value = straight(third)
    assert resumed(third) == value
    assert forgetful(third) != value


def test_nothing_is_random() -> None:
    loss, seen = connected(), steps()
    before = torch.get_rng_state()
    for step in seen:
        loss(step)
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not -1"):
        CIRKDMemory(temperature=-1)
    with pytest.raises(ValueError, match="num_region_samples must be 1 or more, not 0"):
        CIRKDMemory(num_region_samples=0)
    with pytest.raises(ValueError, match="pixel_queue must hold what one image adds, 16 places, and not 15"):
        CIRKDMemory(pixel_queue=15)
    with pytest.raises(ValueError, match="class_source is 'labels' or 'teacher', not 'mine'"):
        CIRKDMemory(class_source="mine")
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has scores"):
        CIRKDMemory().setup({"encoder": FeatureInfo(3, 8)}, {"kd_logits": FeatureInfo(3, 8)})
