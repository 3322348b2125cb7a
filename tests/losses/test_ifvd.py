"""Intra-class feature variation against the paper's formula in float64, by hand, and against faults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.check_part.steps import make_step, make_step_from_maps
from segkd.errors import UserError
from segkd.losses import ifvd
from segkd.losses.ifvd import IFVD
from segkd.losses.regions import downsample_classes, encode_membership
from segkd.losses.tensors import safe_normalize
from segkd.types import IGNORE_INDEX, Batch, FeatureInfo, NetworkOutput, Step
from tests.helpers.loss_references import compute_ifvd
from tests.helpers.numerical_gradients import compute_numerical_gradient

Array = np.ndarray


def make_void_step() -> tuple[Step, Array, Array, Array]:
    """Return a step of 2 images of 5 against 6 channels at 3×4, with void and padding, and its maps and classes."""
    student = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 3, 4))
    target[0, 0, :3] = IGNORE_INDEX
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[1, :, 3] = False
    classes = target.masked_fill(~valid, IGNORE_INDEX).numpy()
    step = make_step_from_maps(student, teacher, target=target, valid=valid)
    return step, student.detach().numpy(), teacher.numpy(), classes


def compare(step: Step, value: Tensor, expected: float, expected_gradient: Array) -> tuple[bool, bool]:
    """Return whether value and gradient are as expected."""
    (gradient,) = torch.autograd.grad(value, step.student.features["encoder"])
    return np.isclose(value.item(), expected, rtol=1e-9), np.allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-9)


def test_value_and_gradient_equal_the_paper() -> None:
    step, student, teacher, classes = make_void_step()
    gradient = compute_numerical_gradient(lambda maps: compute_ifvd(maps, teacher, classes), student)
    assert compare(step, IFVD()(step), compute_ifvd(student, teacher, classes), gradient) == (True, True)


def skip_normalization(features: Tensor, membership: Tensor) -> Tensor:
    weights = membership.to(features)
    return (features.mT @ (features @ weights) * weights).sum(2)


def normalize_over_positions(features: Tensor, membership: Tensor) -> Tensor:
    weights = membership.to(features)
    return (safe_normalize(features, 2).mT @ safe_normalize(features @ weights) * weights).sum(2)


def average_over_the_batch(features: Tensor, membership: Tensor) -> Tensor:
    weights = membership.to(features)
    centers = (features @ weights).sum(0, keepdim=True)
    return (safe_normalize(features).mT @ safe_normalize(centers) * weights).sum(2)


def detach_centers(features: Tensor, membership: Tensor) -> Tensor:
    weights = membership.to(features)
    return (safe_normalize(features).mT @ safe_normalize(features @ weights).detach() * weights).sum(2)


@pytest.mark.parametrize(
    ("fault", "is_value_equal"),
    [
        (skip_normalization, False),
        (normalize_over_positions, False),
        (average_over_the_batch, False),
        (detach_centers, True),
    ],
)
def test_faults_are_detected(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor, Tensor], Tensor], is_value_equal: bool
) -> None:
    step, student, teacher, classes = make_void_step()
    gradient = compute_numerical_gradient(lambda maps: compute_ifvd(maps, teacher, classes), student)
    monkeypatch.setattr(ifvd, "compute_similarity_to_class_center", fault)
    assert compare(step, IFVD()(step), compute_ifvd(student, teacher, classes), gradient) == (is_value_equal, False)


def test_positions_without_a_class_are_ignored() -> None:
    """Counted as in the authors' code, or as one more class, they change the value."""
    step, student, teacher, classes = make_void_step()
    value = IFVD()(step).item()
    fraction = np.mean(classes != IGNORE_INDEX)
    as_class = compute_ifvd(student, teacher, np.where(classes == IGNORE_INDEX, 3, classes))
    for wrong in (value * fraction, as_class):
        assert value != pytest.approx(wrong, rel=1e-3)
    changed = student.copy()
    changed.transpose(0, 2, 3, 1)[classes == IGNORE_INDEX] += 3
    again = make_step_from_maps(torch.from_numpy(changed), torch.from_numpy(teacher))._replace(batch=step.batch)
    assert IFVD()(again).item() == pytest.approx(value)


def test_value_by_hand() -> None:
    """The student's two positions of one class are orthogonal, each at 45° to their mean; the teacher's are equal."""
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 3.0]]).view(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
    assert IFVD()(make_step_from_maps(student, teacher)).item() == pytest.approx((1 - np.sqrt(1 / 2)) ** 2)
    separate = make_step_from_maps(student, teacher, target=torch.tensor([[[0, 1]]]))
    assert IFVD()(separate).item() == pytest.approx(0, abs=1e-12)


def test_classes_of_the_teacher_need_no_labels() -> None:
    step = make_step()
    assert step.teacher is not None
    predicted = step.teacher.logits.argmax(1)
    unlabeled = step.batch._replace(target=torch.full_like(step.batch.target, IGNORE_INDEX))
    labeled = step.batch._replace(target=predicted.repeat_interleave(8, 1).repeat_interleave(8, 2))
    value = IFVD(class_source="teacher")(step._replace(batch=unlabeled))
    torch.testing.assert_close(value, IFVD()(step._replace(batch=labeled)))
    assert IFVD()(step._replace(batch=unlabeled)) == 0
    assert not torch.isclose(value, IFVD()(step))


def test_labels_are_downsampled_to_the_map() -> None:
    """At 1/8 the class of a position is the label in the middle of its square, and none where that is padded."""
    target = torch.arange(6).view(1, 2, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    valid = torch.ones(1, 16, 24, dtype=torch.bool)
    valid[..., 16:] = False
    output = NetworkOutput(torch.zeros(1, 6, 2, 3), {}, True)
    batch = Batch(torch.zeros(1, 3, 16, 24), target, valid, torch.arange(1))
    classes = downsample_classes(Step(batch, output, output), (2, 3), "labels")
    assert classes.tolist() == [[[0, 1, IGNORE_INDEX], [3, 4, IGNORE_INDEX]]]
    assert encode_membership(classes.flatten(1), 6).sum(2).tolist() == [[1, 1, 0, 1, 1, 0]]


def test_zero_feature_gets_no_gradient() -> None:
    """Such features come from a ReLU; `F.normalize` gives them 10¹² times the gradient of the rest."""
    student = torch.randn(1, 4, 2, 3)
    student[..., 0, 0] = 0

    def compute_max_gradient(normalize: Callable[..., Tensor]) -> float:
        features = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(normalize(features)[:, 0].sum(), features)
        return gradient.abs().max().item()

    assert compute_max_gradient(safe_normalize) < 10
    assert compute_max_gradient(F.normalize) > 1e11
    torch.testing.assert_close(safe_normalize(student), F.normalize(student))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="class_source is 'labels' or 'teacher', not 'mine'"):
        IFVD(class_source="mine")
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has kd_logits"):
        IFVD().setup({"encoder": FeatureInfo(3, 8)}, {"kd_logits": FeatureInfo(3, 8)})
