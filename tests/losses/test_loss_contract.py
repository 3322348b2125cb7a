"""The contract of `losses/base.py`, for every loss that has a yaml; the test of a new loss is its yaml."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from segkd.config.instantiate import build_spec
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.types import IGNORE_INDEX, Batch, FeatureInfo, NetworkOutput, Step, resize
from tests.helpers.steps import make_step

YAMLS = sorted((Path(__file__).parents[2] / "configs" / "loss").glob("*.yaml"))
NODES = {name: node for path in YAMLS for name, node in yaml.safe_load(path.read_text()).items()}

Make = Callable[[Step], Loss]
"""A loss that is connected to the features of a step."""


def made(node: dict[str, object]) -> Make:
    def make(step: Step) -> Loss:
        assert step.teacher is not None
        loss: Loss = build_spec(node)
        loss.setup(taps_of(step.student), taps_of(step.teacher))
        return loss

    return make


def taps_of(outputs: NetworkOutput) -> dict[str, FeatureInfo]:
    return {name: FeatureInfo(maps.shape[1], 8) for name, maps in outputs.features.items()}


def with_maps(outputs: NetworkOutput, change: Callable[[Tensor], Tensor]) -> NetworkOutput:
    """The outputs with every map changed; equal maps stay one tensor."""
    features = {name: change(maps.detach()).requires_grad_() for name, maps in outputs.features.items()}
    return outputs._replace(logits=features["kd_logits"], features=features)


def with_all_maps(step: Step, change: Callable[[Tensor], Tensor]) -> Step:
    assert step.teacher is not None
    return step._replace(student=with_maps(step.student, change), teacher=with_maps(step.teacher, change))


def gradients(loss: Tensor, step: Step) -> list[Tensor]:
    """Of the student's maps that the loss reads."""
    found = torch.autograd.grad(loss, list(step.student.features.values()), allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def seeded(make: Make, step: Step) -> Loss:
    """What a loss draws at random, it draws alike each time."""
    torch.manual_seed(0)
    return make(step)


def odd_sizes(make: Make) -> None:
    step = make_step(size=(7, 9))
    other = make_step(size=(8, 10), seed=1).teacher
    step = step._replace(batch=Batch(*(t[..., :53, :70] if t.ndim > 1 else t for t in step.batch)), teacher=other)
    value = make(step)(step)
    assert value.shape == ()
    assert value > 0
    assert all(g.isfinite().all() for g in gradients(value, step))


def nothing_to_count(make: Make) -> None:
    step = make_step()
    nothing = step.batch._replace(
        target=torch.full_like(step.batch.target, IGNORE_INDEX), valid=torch.zeros_like(step.batch.valid)
    )
    step = step._replace(batch=nothing)
    value = make(step)(step)
    assert value == 0
    found = gradients(value, step)
    assert found
    assert all((g == 0).all() for g in found)


def zero_at_equality(make: Make) -> None:
    step = make_step()
    step = step._replace(teacher=with_maps(step.student, torch.clone))
    assert 0 <= make(step)(step) < 1e-6


def batch_invariance(make: Make) -> None:
    step = make_step()
    twice = with_all_maps(step, lambda maps: maps.repeat(2, 1, 1, 1))
    twice = twice._replace(batch=Batch(*(torch.cat([tensor, tensor]) for tensor in step.batch)))
    torch.testing.assert_close(seeded(make, twice)(twice), seeded(make, step)(step))


def crop_invariance(make: Make) -> None:
    """A plane tiled with one crop is worth what the crop is, where no map has to be enlarged."""
    step = make_step()
    step = step._replace(batch=Batch(*(t[..., :6, :8] if t.ndim > 1 else t for t in step.batch)))
    tiled = with_all_maps(step, lambda maps: maps.repeat(1, 1, 2, 3))
    data = step.batch
    tiled = tiled._replace(
        batch=Batch(
            data.images.repeat(1, 1, 2, 3), data.target.repeat(1, 2, 3), data.valid.repeat(1, 2, 3), seeds=data.seeds
        )
    )
    torch.testing.assert_close(seeded(make, tiled)(tiled), seeded(make, step)(step))


def gradient_of_the_student_alone(make: Make) -> None:
    step = with_all_maps(make_step(), torch.clone)
    assert step.teacher is not None
    loss = make(step)
    loss(step).backward()
    assert any(maps.grad is not None and maps.grad.norm() > 0 for maps in step.student.features.values())
    assert all(maps.grad is None for maps in step.teacher.features.values())


def sums_in_float32(make: Make) -> None:
    """bfloat16 maps are worth the same when they are cast before: nothing in the loss itself is in bfloat16."""
    step = make_step(size=(7, 9))
    step = step._replace(teacher=make_step(size=(8, 10), seed=1).teacher)
    short = with_all_maps(step, torch.Tensor.bfloat16)
    cast = with_all_maps(short, torch.Tensor.float)
    with torch.autocast("cpu", torch.bfloat16):
        value = seeded(make, short)(short)
    torch.testing.assert_close(value, seeded(make, cast)(cast))
    assert all(g.isfinite().all() for g in gradients(value, short))


def state_dict_round_trip(make: Make) -> None:
    step = make_step()
    loss = make(step)
    torch.manual_seed(1)
    twin = make(step)
    twin.load_state_dict(loss.state_dict())
    assert torch.equal(twin(step), loss(step))


def labels_do_not_matter(make: Make) -> None:
    """An image without labels counts as any other."""
    step = make_step()
    unlabelled = step.batch._replace(target=torch.full_like(step.batch.target, IGNORE_INDEX))
    assert seeded(make, step)(step._replace(batch=unlabelled)) == seeded(make, step)(step)


def teacher_is_resized_its_own_way(make: Make) -> None:
    step, other = make_step(size=(7, 9)), make_step(size=(11, 6), seed=1).teacher
    assert other is not None
    for align_corners in (True, False):
        larger = step._replace(teacher=other._replace(align_corners=align_corners))
        fitting = step._replace(teacher=with_maps(other, partial(resize, size=(7, 9), align_corners=align_corners)))
        torch.testing.assert_close(seeded(make, step)(larger), seeded(make, step)(fitting))


def compiles(make: Make) -> None:
    """In one graph: the step nowhere waits for a value."""
    torch.compiler.reset()
    step = make_step()
    eager = seeded(make, step)(step)
    loss = seeded(make, step)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)(step)
    torch.testing.assert_close(compiled, eager)
    for ours, theirs in zip(gradients(compiled, step), gradients(eager, step), strict=True):
        torch.testing.assert_close(ours, theirs)


LINES = {
    line.__name__: line
    for line in (
        odd_sizes,
        nothing_to_count,
        zero_at_equality,
        batch_invariance,
        crop_invariance,
        gradient_of_the_student_alone,
        sums_in_float32,
        state_dict_round_trip,
        labels_do_not_matter,
        teacher_is_resized_its_own_way,
        compiles,
    )
}


@pytest.mark.parametrize("name", NODES)
def test_contract(name: str) -> None:
    exempt = made(NODES[name])(make_step()).exemptions
    for line, check in LINES.items():
        if line in exempt:
            print(f"{name} is exempt from {line}: {exempt[line]}")
            with pytest.raises(AssertionError):
                check(made(NODES[name]))
        else:
            check(made(NODES[name]))


def test_the_exemptions_are_these() -> None:
    exempt = {name: set(made(node)(make_step()).exemptions) for name, node in NODES.items()}
    assert {name: lines for name, lines in exempt.items() if lines} == {
        "cross_entropy": {"zero_at_equality", "labels_do_not_matter"},
        "hint": {"zero_at_equality"},
        "local": {"crop_invariance"},
        "ifvd": {"labels_do_not_matter"},
        "cirkd": {"process_invariance"},
        "cirkd_memory": {"crop_invariance", "labels_do_not_matter"},
        "lovasz": {"zero_at_equality", "labels_do_not_matter"},
    }
    assert len(NODES) == len(YAMLS) >= 12


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("weight", [-0.5, float("nan")])
def test_a_weight_below_zero_is_refused(name: str, weight: float) -> None:
    with pytest.raises(
        UserError, match=f"weight must be 0 or more, not {weight}: a negative one would teach the opposite"
    ):
        build_spec({**NODES[name], "weight": weight})
    assert build_spec({**NODES[name], "weight": 0.0}).weight == 0


class Formula(Loss):
    """A loss made of a formula in the student's and the teacher's scores, times what no state dict tells."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor], hidden: Tensor) -> None:
        super().__init__()
        self.formula, self.hidden = formula, hidden

    def forward(self, step: Step) -> Tensor:
        assert step.teacher is not None
        return self.formula(step.student.logits, step.teacher.logits) * self.hidden


class OfLabelled(Formula):
    """The same, times the share of pixels that have a label."""

    def forward(self, step: Step) -> Tensor:
        return super().forward(step) * (step.batch.target != IGNORE_INDEX).float().mean()


def squares(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


FAULTY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "odd_sizes": lambda s, t: squares(s, t.detach()).mean(),
    "nothing_to_count": lambda s, t: squares(s, t.detach()).mean(),
    "zero_at_equality": lambda s, t: F.cross_entropy(s, t.softmax(1)),
    "batch_invariance": lambda s, t: squares(s, t).mean((1, 2, 3)).sum(),
    "crop_invariance": lambda s, t: F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean"),
    "gradient_of_the_student_alone": lambda s, t: squares(s, t).mean(),
    "sums_in_float32": lambda s, t: squares(s, F.interpolate(t, s.shape[2:])).mean().float(),
    "state_dict_round_trip": lambda s, t: squares(s, t).mean(),
    "labels_do_not_matter": lambda s, t: squares(s, t).mean(),
    "teacher_is_resized_its_own_way": lambda s, t: squares(s, resize(t, s.shape[2:], True)).mean(),
    "compiles": lambda s, t: squares(s, t).mean() if s.sum().item() > 0 else squares(s, t).sum(),
}


@pytest.mark.parametrize("line", LINES)
def test_the_contract_finds_faults(line: str) -> None:
    def make(step: Step) -> Loss:
        kind = OfLabelled if line == "labels_do_not_matter" else Formula
        return kind(FAULTY[line], torch.rand(()) if line == "state_dict_round_trip" else torch.tensor(1.0))

    with pytest.raises((AssertionError, RuntimeError)):
        LINES[line](make)


@pytest.mark.parametrize("name", NODES)
def test_a_feature_that_is_zero_gets_no_great_gradient(name: str) -> None:
    """All channels are zero where a ReLU fires nowhere; dividing by such a norm would magnify the gradient 10¹² times."""
    step = make_step()
    silent = with_maps(step.student, lambda maps: maps.clone().index_fill(3, torch.tensor([0, 1]), 0.0))
    step = step._replace(student=silent)
    found = gradients(seeded(made(NODES[name]), step)(step), step)
    assert found
    assert all(g.abs().max() < 100 for g in found)
