"""The contract of `losses/base.py`, for every loss that has a yaml; a new yaml is tested automatically."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.config.instantiate import parse_spec
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.types import IGNORE_INDEX, Batch, NetworkOutput, Step, resize
from tests.helpers.losses import SPECS, YAMLS, LossFactory, compute_gradients, make_factory, make_seeded
from tests.helpers.steps import make_step


def change_maps(output: NetworkOutput, change: Callable[[Tensor], Tensor]) -> NetworkOutput:
    """Return the output with every map changed; `kd_logits` and the logits stay one tensor."""
    features = {name: change(maps.detach()).requires_grad_() for name, maps in output.features.items()}
    return output._replace(logits=features["kd_logits"], features=features)


def change_all_maps(step: Step, change: Callable[[Tensor], Tensor]) -> Step:
    assert step.teacher is not None
    return step._replace(student=change_maps(step.student, change), teacher=change_maps(step.teacher, change))


def check_odd_sizes(make_loss: LossFactory) -> None:
    step = make_step(size=(7, 9))
    other = make_step(size=(8, 10), seed=1).teacher
    step = step._replace(batch=Batch(*(t[..., :53, :70] if t.ndim > 1 else t for t in step.batch)), teacher=other)
    value = make_loss(step)(step)
    assert value.shape == ()
    assert value > 0
    assert all(g.isfinite().all() for g in compute_gradients(value, step))


def check_nothing_valid(make_loss: LossFactory) -> None:
    step = make_step()
    batch = step.batch._replace(
        target=torch.full_like(step.batch.target, IGNORE_INDEX), valid=torch.zeros_like(step.batch.valid)
    )
    step = step._replace(batch=batch)
    value = make_loss(step)(step)
    assert value == 0
    gradients = compute_gradients(value, step)
    assert gradients
    assert all((g == 0).all() for g in gradients)


def check_zero_at_equality(make_loss: LossFactory) -> None:
    step = make_step()
    step = step._replace(teacher=change_maps(step.student, torch.clone))
    assert 0 <= make_loss(step)(step) < 1e-6


def check_batch_invariance(make_loss: LossFactory) -> None:
    step = make_step()
    twice = change_all_maps(step, lambda maps: maps.repeat(2, 1, 1, 1))
    twice = twice._replace(batch=Batch(*(torch.cat([tensor, tensor]) for tensor in step.batch)))
    torch.testing.assert_close(make_seeded(make_loss, twice)(twice), make_seeded(make_loss, step)(step))


def check_crop_invariance(make_loss: LossFactory) -> None:
    """A plane tiled with one crop has the loss of the crop, if no map has to be enlarged."""
    step = make_step()
    step = step._replace(batch=Batch(*(t[..., :6, :8] if t.ndim > 1 else t for t in step.batch)))
    tiled = change_all_maps(step, lambda maps: maps.repeat(1, 1, 2, 3))
    data = step.batch
    tiled = tiled._replace(
        batch=Batch(
            data.images.repeat(1, 1, 2, 3), data.target.repeat(1, 2, 3), data.valid.repeat(1, 2, 3), seeds=data.seeds
        )
    )
    torch.testing.assert_close(make_seeded(make_loss, tiled)(tiled), make_seeded(make_loss, step)(step))


def check_only_the_student_gets_gradients(make_loss: LossFactory) -> None:
    step = change_all_maps(make_step(), torch.clone)
    assert step.teacher is not None
    loss = make_loss(step)
    loss(step).backward()
    assert any(maps.grad is not None and maps.grad.norm() > 0 for maps in step.student.features.values())
    assert all(maps.grad is None for maps in step.teacher.features.values())


def check_sums_in_float32(make_loss: LossFactory) -> None:
    """bfloat16 maps and their float32 copies have the same loss: nothing in the loss itself is in bfloat16."""
    step = make_step(size=(7, 9))
    step = step._replace(teacher=make_step(size=(8, 10), seed=1).teacher)
    short = change_all_maps(step, torch.Tensor.bfloat16)
    cast = change_all_maps(short, torch.Tensor.float)
    with torch.autocast("cpu", torch.bfloat16):
        value = make_seeded(make_loss, short)(short)
    torch.testing.assert_close(value, make_seeded(make_loss, cast)(cast))
    assert all(g.isfinite().all() for g in compute_gradients(value, short))


def check_state_dict_round_trip(make_loss: LossFactory) -> None:
    step = make_step()
    loss = make_loss(step)
    torch.manual_seed(1)
    twin = make_loss(step)
    twin.load_state_dict(loss.state_dict())
    assert torch.equal(twin(step), loss(step))


def check_labels_do_not_matter(make_loss: LossFactory) -> None:
    """An image without labels counts like any other."""
    step = make_step()
    unlabeled = step.batch._replace(target=torch.full_like(step.batch.target, IGNORE_INDEX))
    assert make_seeded(make_loss, step)(step._replace(batch=unlabeled)) == make_seeded(make_loss, step)(step)


def check_teacher_is_resized_by_its_own_convention(make_loss: LossFactory) -> None:
    step, other = make_step(size=(7, 9)), make_step(size=(11, 6), seed=1).teacher
    assert other is not None
    for align_corners in (True, False):
        larger = step._replace(teacher=other._replace(align_corners=align_corners))
        fitting = step._replace(teacher=change_maps(other, partial(resize, size=(7, 9), align_corners=align_corners)))
        torch.testing.assert_close(make_seeded(make_loss, step)(larger), make_seeded(make_loss, step)(fitting))


def check_compiles(make_loss: LossFactory) -> None:
    """Compile the loss as one graph, which does not wait for a value."""
    torch.compiler.reset()
    step = make_step()
    eager = make_seeded(make_loss, step)(step)
    loss = make_seeded(make_loss, step)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)(step)
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(compute_gradients(compiled, step), compute_gradients(eager, step))


CHECKS = {
    "odd_sizes": check_odd_sizes,
    "nothing_valid": check_nothing_valid,
    "zero_at_equality": check_zero_at_equality,
    "batch_invariance": check_batch_invariance,
    "crop_invariance": check_crop_invariance,
    "only_the_student_gets_gradients": check_only_the_student_gets_gradients,
    "sums_in_float32": check_sums_in_float32,
    "state_dict_round_trip": check_state_dict_round_trip,
    "labels_do_not_matter": check_labels_do_not_matter,
    "teacher_is_resized_by_its_own_convention": check_teacher_is_resized_by_its_own_convention,
    "compiles": check_compiles,
}


@pytest.mark.parametrize("name", SPECS)
def test_loss_keeps_the_contract(name: str) -> None:
    exemptions = make_factory(SPECS[name])(make_step()).exemptions
    for line, check in CHECKS.items():
        if line in exemptions:
            print(f"{name} is exempt from {line}: {exemptions[line]}")
            with pytest.raises(AssertionError):
                check(make_factory(SPECS[name]))
        else:
            check(make_factory(SPECS[name]))


def test_exemptions() -> None:
    exemptions = {name: set(make_factory(spec)(make_step()).exemptions) for name, spec in SPECS.items()}
    assert {name: lines for name, lines in exemptions.items() if lines} == {
        "cross_entropy": {"zero_at_equality", "labels_do_not_matter"},
        "hint": {"zero_at_equality"},
        "local": {"crop_invariance"},
        "ifvd": {"labels_do_not_matter"},
        "cirkd": {"process_invariance"},
        "cirkd_memory": {"crop_invariance", "labels_do_not_matter"},
        "lovasz": {"zero_at_equality", "labels_do_not_matter"},
    }
    assert len(SPECS) == len(YAMLS) >= 12


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("weight", [-0.5, float("nan")])
def test_negative_weight_is_refused(name: str, weight: float) -> None:
    with pytest.raises(
        UserError, match=f"weight must be 0 or more, not {weight}: a negative one would teach the opposite"
    ):
        parse_spec({**SPECS[name], "weight": weight}).build()
    assert parse_spec({**SPECS[name], "weight": 0.0}).build().weight == 0


class Formula(Loss):
    """A loss of a formula in the student's and the teacher's logits, times a value that no state dict holds."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor], hidden: Tensor) -> None:
        super().__init__()
        self.formula, self.hidden = formula, hidden

    def forward(self, step: Step) -> Tensor:
        assert step.teacher is not None
        return self.formula(step.student.logits, step.teacher.logits) * self.hidden


class LabeledFormula(Formula):
    """The same, times the fraction of labeled pixels."""

    def forward(self, step: Step) -> Tensor:
        return super().forward(step) * (step.batch.target != IGNORE_INDEX).float().mean()


def square_difference(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


FAULTY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "odd_sizes": lambda s, t: square_difference(s, t.detach()).mean(),
    "nothing_valid": lambda s, t: square_difference(s, t.detach()).mean(),
    "zero_at_equality": lambda s, t: F.cross_entropy(s, t.softmax(1)),
    "batch_invariance": lambda s, t: square_difference(s, t).mean((1, 2, 3)).sum(),
    "crop_invariance": lambda s, t: F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean"),
    "only_the_student_gets_gradients": lambda s, t: square_difference(s, t).mean(),
    "sums_in_float32": lambda s, t: square_difference(s, F.interpolate(t, s.shape[2:])).mean().float(),
    "state_dict_round_trip": lambda s, t: square_difference(s, t).mean(),
    "labels_do_not_matter": lambda s, t: square_difference(s, t).mean(),
    "teacher_is_resized_by_its_own_convention": lambda s, t: square_difference(s, resize(t, s.shape[2:], True)).mean(),
    "compiles": lambda s, t: square_difference(s, t).mean() if s.sum().item() > 0 else square_difference(s, t).sum(),
}


@pytest.mark.parametrize("line", CHECKS)
def test_faults_are_detected(line: str) -> None:
    def make_loss(step: Step) -> Loss:
        kind = LabeledFormula if line == "labels_do_not_matter" else Formula
        return kind(FAULTY[line], torch.rand(()) if line == "state_dict_round_trip" else torch.tensor(1.0))

    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[line](make_loss)


@pytest.mark.parametrize("name", SPECS)
def test_zero_feature_gets_no_huge_gradient(name: str) -> None:
    """All channels are zero where a ReLU fires nowhere; dividing by such a norm would magnify the gradient 10¹² times."""
    step = make_step()
    student = change_maps(step.student, lambda maps: maps.clone().index_fill(3, torch.tensor([0, 1]), 0.0))
    step = step._replace(student=student)
    gradients = compute_gradients(make_seeded(make_factory(SPECS[name]), step)(step), step)
    assert gradients
    assert all(g.abs().max() < 100 for g in gradients)


@pytest.mark.parametrize("name", SPECS)
def test_teacher_of_other_classes_is_taken_where_the_loss_says_so(name: str) -> None:
    step, other = make_step(classes=5), make_step(classes=9)
    loss = make_factory(SPECS[name])(step)
    if loss.needs_teacher and not loss.needs_teacher_classes:
        step = step._replace(teacher=other.teacher)
        value = make_factory(SPECS[name])(step)(step)
        assert value.isfinite()
        assert any(g.abs().sum() > 0 for g in compute_gradients(value, step))
