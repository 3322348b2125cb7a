"""CIRKD's memory terms against the paper's formula in float64 with queues that are lists, and against faults."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.errors import UserError
from segkd.losses import cirkd_memory
from segkd.losses.cirkd_memory import CIRKDMemory, Queue
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers.memory_reference import (
    CLASSES,
    PIXEL_QUEUE,
    PIXEL_SAMPLES,
    REGION_QUEUE,
    REGION_SAMPLES,
    compute_cirkd_memory,
    make_memory_loss,
)
from tests.helpers.numerical_gradients import compute_numerical_gradient


def make_steps(count: int = 3) -> list[Step]:
    """Make steps of 2 images of 5 against 6 channels at 3×4, with void and padding; the last class is rare."""
    torch.manual_seed(0)

    def make_step() -> Step:
        target = torch.randint(0, 2, (2, 3, 4))
        target[0, 0, 0], target[0, 2, :2] = 2, IGNORE_INDEX
        valid = torch.ones(2, 3, 4, dtype=torch.bool)
        valid[1, :, 3] = False
        student = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
        return make_step_from_maps(student, torch.randn(2, 6, 3, 4, dtype=torch.float64), target=target, valid=valid)

    return [make_step() for _ in range(count)]


@cache
def compute_reference() -> tuple[float, np.ndarray]:
    """Return value and gradient at the third step by the paper's formula."""
    steps, loss = make_steps(), make_memory_loss()
    student = steps[-1].student.features["encoder"].detach().numpy()
    value = compute_cirkd_memory(student, steps, loss)
    return value, compute_numerical_gradient(lambda maps: compute_cirkd_memory(maps, steps, loss), student)


def compare_with_reference(loss: CIRKDMemory, steps: list[Step]) -> tuple[bool, bool]:
    """Return whether value and gradient at the last step are as expected."""
    for step in steps:
        value = loss(step)
    (gradient,) = torch.autograd.grad(value, steps[-1].student.features["encoder"])
    expected, expected_gradient = compute_reference()
    return np.isclose(value.item(), expected, rtol=1e-9), np.allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-8)


def test_value_and_gradient_equal_the_paper() -> None:
    assert compare_with_reference(make_memory_loss(), make_steps()) == (True, True)


def test_queues_overflow_in_the_reference() -> None:
    """Otherwise it would not tell which entries are dropped, and which are sampled."""
    loss = make_memory_loss()
    for step in make_steps():
        loss(step)
    assert loss.pixel_memory.pushed[:2].min() > PIXEL_QUEUE > PIXEL_SAMPLES
    assert loss.region_memory.pushed[:2].min() > REGION_QUEUE > REGION_SAMPLES
    assert loss.pixel_memory.pushed[2] < PIXEL_SAMPLES  # and here slots are empty


def ignore_temperature(units: Tensor, samples: Tensor, exists: Tensor, temperature: float) -> Tensor:
    return (units @ samples.mT).masked_fill(~exists, -1e9).log_softmax(2)


def normalize_over_positions(units: Tensor, samples: Tensor, exists: Tensor, temperature: float) -> Tensor:
    return (units @ samples.mT / temperature).masked_fill(~exists, -1e9).log_softmax(1)


def include_empty_slots(units: Tensor, samples: Tensor, exists: Tensor, temperature: float) -> Tensor:
    return (units @ samples.mT / temperature).log_softmax(2)


def sample_first_slots(self: Queue, count: int) -> tuple[Tensor, Tensor]:
    return self.entries[:, :count].flatten(0, 1), self.entries[:, :count].any(2).flatten()


def sample_newest(self: Queue, count: int) -> tuple[Tensor, Tensor]:
    slots = (self.pushed[:, None] - 1 - torch.arange(count)) % self.entries.shape[1]
    entries = self.entries[torch.arange(CLASSES)[:, None], slots]
    return entries.flatten(0, 1), entries.any(2).flatten()


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (cirkd_memory, "_log_similarity", ignore_temperature),
        (cirkd_memory, "_log_similarity", normalize_over_positions),
        (cirkd_memory, "_log_similarity", include_empty_slots),
        (CIRKDMemory, "_update_memory", lambda self, features, classes: None),
        (Queue, "sample", sample_first_slots),
        (Queue, "sample", sample_newest),
        (cirkd_memory, "safe_normalize", lambda maps, dim: maps),
        (cirkd_memory, "safe_normalize", lambda maps, dim: torch.nn.functional.normalize(maps, dim=1)),
        (cirkd_memory, "global_mean", lambda total, count: total),
    ],
)
def test_faults_are_detected(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fault: Callable[..., object]
) -> None:
    monkeypatch.setattr(owner, name, fault)
    assert compare_with_reference(make_memory_loss(), make_steps()) == (False, False)


def test_equal_widths_need_no_projector() -> None:
    assert not list(make_memory_loss(student_channels=6).parameters())
    assert sum(p.numel() for p in make_memory_loss().parameters()) == 5 * 6 + 6 * 6


def test_only_the_first_pass_in_training_updates_the_memory() -> None:
    loss, (step, *_) = make_memory_loss(), make_steps()
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
    assert not torch.equal(before["pixel_memory.pushed"], loss.pixel_memory.pushed)


def test_queues_are_restored_from_the_state_dict() -> None:
    first, second, third = make_steps()
    loss = make_memory_loss()
    for step in (first, second):
        loss(step)
    resumed, fresh = make_memory_loss(), make_memory_loss()
    resumed.load_state_dict(loss.state_dict())
    value = loss(third)
    assert resumed(third) == value
    assert fresh(third) != value


def test_no_random_numbers_are_drawn() -> None:
    loss, steps = make_memory_loss(), make_steps()
    before = torch.get_rng_state()
    for step in steps:
        loss(step)
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not -1"):
        CIRKDMemory(temperature=-1)
    with pytest.raises(ValueError, match="num_region_samples must be 1 or more, not 0"):
        CIRKDMemory(num_region_samples=0)
    with pytest.raises(ValueError, match="pixel_queue must be at least pixels_per_class, 16, not 15"):
        CIRKDMemory(pixel_queue=15)
    with pytest.raises(ValueError, match="class_source is 'labels' or 'teacher', not 'mine'"):
        CIRKDMemory(class_source="mine")
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has kd_logits"):
        CIRKDMemory().setup({"encoder": FeatureInfo(3, 8)}, {"kd_logits": FeatureInfo(3, 8)})
