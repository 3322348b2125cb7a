"""Intra-class feature variation against the paper's formula in float64, by hand, and against its own faults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.losses import ifvd
from segkd.losses.functional import safe_normalize
from segkd.losses.ifvd import IFVD
from segkd.losses.regions import downsample_classes, one_hot_membership
from segkd.types import IGNORE_INDEX, Batch, FeatureInfo, NetworkOutput, Step
from tests.helpers.numerical_gradients import slopes
from tests.helpers.steps import make_step, make_step_from_maps

Array = np.ndarray


def paper(student: Array, teacher: Array, classes: Array) -> float:
    """Mean over the places that have a class of (v_i^student − v_i^teacher)², v_i = cos(f_i, μ_c(i)), place by place."""

    def cosine(maps: Array, image: int, row: int, column: int) -> float:
        region = np.argwhere(classes[image] == classes[image, row, column])
        centre = np.mean([maps[image, :, y, x] for y, x in region], axis=0)
        feature = maps[image, :, row, column]
        return float(feature @ centre / np.sqrt((feature @ feature) * (centre @ centre)))

    squares = [
        (cosine(student, *place) - cosine(teacher, *place)) ** 2 for place in np.argwhere(classes != IGNORE_INDEX)
    ]
    return float(np.mean(squares))


def case() -> tuple[Step, Array, Array, Array]:
    """2 images of 5 against 6 channels at 3×4; the second's last column is padding, and void is spread unevenly."""
    student = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 3, 4))
    target[0, 0, :3] = IGNORE_INDEX
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[1, :, 3] = False
    classes = target.masked_fill(~valid, IGNORE_INDEX).numpy()
    step = make_step_from_maps(student, teacher, target=target, valid=valid)
    return step, student.detach().numpy(), teacher.numpy(), classes


def agrees(step: Step, value: Tensor, expected: float, slope: Array) -> tuple[bool, bool]:
    (gradient,) = torch.autograd.grad(value, step.student.features["encoder"])
    return np.isclose(value.item(), expected, rtol=1e-9), np.allclose(gradient, slope, rtol=1e-5, atol=1e-9)


def test_value_and_gradient_are_the_papers() -> None:
    step, student, teacher, classes = case()
    slope = slopes(lambda maps: paper(maps, teacher, classes), student)
    assert agrees(step, IFVD()(step), paper(student, teacher, classes), slope) == (True, True)


def without_norm(features: Tensor, of_class: Tensor) -> Tensor:
    chosen = of_class.to(features)
    return (features.mT @ (features @ chosen) * chosen).sum(2)


def along_places(features: Tensor, of_class: Tensor) -> Tensor:
    chosen = of_class.to(features)
    return (safe_normalize(features, 2).mT @ safe_normalize(features @ chosen) * chosen).sum(2)


def centres_of_the_batch(features: Tensor, of_class: Tensor) -> Tensor:
    chosen = of_class.to(features)
    centres = (features @ chosen).sum(0, keepdim=True)
    return (safe_normalize(features).mT @ safe_normalize(centres) * chosen).sum(2)


def centres_held(features: Tensor, of_class: Tensor) -> Tensor:
    chosen = of_class.to(features)
    return (safe_normalize(features).mT @ safe_normalize(features @ chosen).detach() * chosen).sum(2)


@pytest.mark.parametrize(
    ("fault", "value_stays"),
    [(without_norm, False), (along_places, False), (centres_of_the_batch, False), (centres_held, True)],
)
def test_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor, Tensor], Tensor], value_stays: bool
) -> None:
    step, student, teacher, classes = case()
    slope = slopes(lambda maps: paper(maps, teacher, classes), student)
    monkeypatch.setattr(ifvd, "similarity_to_class_center", fault)
    assert agrees(step, IFVD()(step), paper(student, teacher, classes), slope) == (value_stays, False)


def test_places_without_a_class_do_not_count() -> None:
    """As the authors' code counts them, or as one more class, the value is another."""
    step, student, teacher, classes = case()
    value = IFVD()(step).item()
    share = np.mean(classes != IGNORE_INDEX)
    of_void = paper(student, teacher, np.where(classes == IGNORE_INDEX, 3, classes))
    for wrong in (value * share, of_void):
        assert value != pytest.approx(wrong, rel=1e-3)
    changed = student.copy()
    changed.transpose(0, 2, 3, 1)[classes == IGNORE_INDEX] += 3
    again = make_step_from_maps(torch.from_numpy(changed), torch.from_numpy(teacher))._replace(batch=step.batch)
    assert IFVD()(again).item() == pytest.approx(value)


def test_by_hand() -> None:
    """The student's two places of one class are at right angles, so each is at 45° to their mean; the teacher's agree."""
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 3.0]]).view(1, 2, 1, 2), torch.ones(1, 1, 1, 2)
    assert IFVD()(make_step_from_maps(student, teacher)).item() == pytest.approx((1 - np.sqrt(1 / 2)) ** 2)
    apart = make_step_from_maps(student, teacher, target=torch.tensor([[[0, 1]]]))
    assert IFVD()(apart).item() == pytest.approx(0, abs=1e-12)


def test_regions_of_the_teacher_need_no_labels() -> None:
    step = make_step()
    assert step.teacher is not None
    answer = step.teacher.logits.argmax(1)
    unlabelled = step.batch._replace(target=torch.full_like(step.batch.target, IGNORE_INDEX))
    labelled = step.batch._replace(target=answer.repeat_interleave(8, 1).repeat_interleave(8, 2))
    value = IFVD(class_source="teacher")(step._replace(batch=unlabelled))
    torch.testing.assert_close(value, IFVD()(step._replace(batch=labelled)))
    assert IFVD()(step._replace(batch=unlabelled)) == 0
    assert not torch.isclose(value, IFVD()(step))


def test_labels_are_read_at_the_places_of_the_map() -> None:
    """At 1/8 a place's class is the label in the middle of its square, and none where that is padding."""
    target = torch.arange(6).view(1, 2, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    valid = torch.ones(1, 16, 24, dtype=torch.bool)
    valid[..., 16:] = False
    outputs = NetworkOutput(torch.zeros(1, 6, 2, 3), {}, True)
    batch = Batch(torch.zeros(1, 3, 16, 24), target, valid, torch.arange(1))
    found = downsample_classes(Step(batch, outputs, outputs), (2, 3), "labels")
    assert found.tolist() == [[[0, 1, IGNORE_INDEX], [3, 4, IGNORE_INDEX]]]
    assert one_hot_membership(found.flatten(1), 6).sum(2).tolist() == [[1, 1, 0, 1, 1, 0]]


def test_a_feature_that_is_zero_gets_no_gradient() -> None:
    """Such features come from a ReLU; `F.normalize` hands them 10¹² times the gradient of the rest."""
    student = torch.randn(1, 4, 2, 3)
    student[..., 0, 0] = 0

    def steepest(unit: Callable[..., Tensor]) -> float:
        features = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(unit(features)[:, 0].sum(), features)
        return gradient.abs().max().item()

    assert steepest(safe_normalize) < 10
    assert steepest(F.normalize) > 1e11
    torch.testing.assert_close(safe_normalize(student), F.normalize(student))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="class_source is 'labels' or 'teacher', not 'mine'"):
        IFVD(class_source="mine")
    with pytest.raises(UserError, match="the teacher has no feature 'encoder'; it has scores"):
        IFVD().setup({"encoder": FeatureInfo(3, 8)}, {"kd_logits": FeatureInfo(3, 8)})
