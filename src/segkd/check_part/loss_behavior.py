"""Lines of a loss's contract about what it returns, reads and changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from segkd.check_part.findings import ContractFault, NotApplicable, describe_crash, require
from segkd.check_part.loss_case import LossCase, format_number, get_teacher, require_close
from segkd.check_part.steps import change_all_maps, change_maps, compute_gradients, get_feature_infos
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.types import FeatureInfos, Step

_GREATEST_GRADIENT = 100
"""Of a mean over positions at maps of zeros; a division by a norm of 1e-12 gives far more."""


def check_returns_a_scalar(case: LossCase) -> None:
    """A differentiable scalar tensor."""
    step = case.make_step()
    value: object = case.compute(step)
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ContractFault(
            f"forward returned an object of type {kind}; return one tensor, the raw loss without its weight"
        )
    shape = "×".join(map(str, value.shape))
    require(value.ndim == 0, f"forward returned a tensor of shape {shape}; return a scalar, the mean over valid pixels")
    require(value.is_floating_point(), f"forward returned {value.dtype}; return float32")
    require(bool(value.isfinite()), f"the loss is {format_number(value)} on maps of random numbers")
    require(
        value.requires_grad,
        "the loss cannot be differentiated; do not detach the student, and compute with tensors only",
    )
    gradients = compute_gradients(value, step)
    require(
        any(bool(g.any()) for g in gradients),
        "the loss gives no gradient to any map of the student; compute with tensors only",
    )


def check_reproducible(case: LossCase) -> None:
    """The value follows from the step, so from no random numbers but those of its seeds."""
    step = case.make_step()
    values = []
    for seed in (1, 2):
        loss = case.make_loss(step)
        torch.manual_seed(seed)
        values.append(loss(step))
    require_close(
        values[1],
        values[0],
        "the loss of one step, computed twice with the same weights,",
        "draw random numbers from step.batch.seeds (segkd.models.layers.draw_uniform), not from the process's generator",
    )


def check_leaves_the_step_unchanged(case: LossCase) -> None:
    """Other losses read the same tensors."""
    step = change_all_maps(case.make_step(), lambda maps: maps.clone())
    before = [tensor.detach().clone() for tensor in _list_tensors(step)]
    case.compute(step)
    names = [name for name, _ in _name_tensors(step)]
    changed = [n for n, old, new in zip(names, before, _list_tensors(step), strict=True) if not torch.equal(old, new)]
    require(not changed, f"the loss overwrites {', '.join(changed)}, which other losses read; work on a copy")


def check_only_the_student_gets_gradients(case: LossCase) -> None:
    """The teacher's maps are detached."""
    step = change_all_maps(case.make_step(), torch.clone)
    case.compute(step).backward()  # type: ignore[no-untyped-call]
    learns = any(maps.grad is not None and maps.grad.norm() > 0 for maps in step.student.features.values())
    require(learns, "the student gets no gradient")
    teacher = [name for name, maps in get_teacher(step).features.items() if maps.grad is not None]
    require(
        not teacher,
        f"the teacher's {', '.join(teacher)} gets a gradient; detach the teacher's maps (align_features does)",
    )


def check_zero_features(case: LossCase) -> None:
    """All channels are zero where a ReLU fires nowhere; dividing by such a norm would magnify the gradient 10¹² times."""
    step = case.make_step()
    columns = torch.tensor([0, 1])
    step = step._replace(student=change_maps(step.student, lambda maps: maps.clone().index_fill(3, columns, 0.0)))
    gradients = compute_gradients(case.compute(step), step)
    largest = max((float(gradient.abs().max()) for gradient in gradients), default=0.0)
    require(
        largest < _GREATEST_GRADIENT,  # false for NaN
        f"the gradient is up to {largest:.3g} where all channels of a position are zero, and must be less than "
        f"{_GREATEST_GRADIENT}; do not divide by the norm of such a position",
    )


def check_parameters(case: LossCase) -> None:
    """Parameters exist after `setup`, before any optimizer, and each gets a gradient."""
    step = case.make_step()
    loss = case.make_loss(step)
    before = {name for name, parameter in loss.named_parameters() if not isinstance(parameter, UninitializedParameter)}
    value = loss(step)
    if late := [name for name, _ in loss.named_parameters() if name not in before]:
        raise ContractFault(
            f"forward creates {', '.join(late)}, of which no optimizer knows; create parameters in setup"
        )
    if not before:
        raise NotApplicable("it has no parameters")
    value.backward()
    idle = [name for name, parameter in loss.named_parameters() if parameter.requires_grad and parameter.grad is None]
    require(not idle, f"{', '.join(idle)} gets no gradient; use it, or set requires_grad=False")


def check_state_dict_round_trip(case: LossCase) -> None:
    """A loss with other weights is the same after it has loaded the state dict."""
    step = case.make_step()
    loss, twin = case.make_loss(step), case.make_loss(step, seed=1)
    twin.load_state_dict(loss.state_dict())
    value, expected = twin(step), loss(step)
    require(
        torch.equal(value, expected),
        f"the loss is {format_number(value)} after loading the state dict of a loss that gives {format_number(expected)}; "
        "make tensors that it holds parameters or buffers (register_buffer), so that a resumed training has them",
    )


def check_works_without_teacher(case: LossCase) -> None:
    """A loss that declares `needs_teacher = False` takes a step without one."""
    step = case.make_step()
    if case.make_loss(step).needs_teacher:
        raise NotApplicable("it needs a teacher")
    value = case.compute(step._replace(teacher=None))
    require(bool(value.isfinite()), f"the loss is {format_number(value)} without a teacher")


class _RecordedNames(dict[str, Tensor]):
    """Feature maps that remember which were read."""

    def __init__(self, features: dict[str, Tensor]) -> None:
        super().__init__(features)
        self.names: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.names.append(name)
        return super().__getitem__(name)


def check_refuses_missing_features(case: LossCase) -> None:
    """`setup` says in a sentence that a network lacks a feature; without it, the first step of a training crashes."""
    step = case.make_step()
    teacher = get_teacher(step)
    read = _RecordedNames(step.student.features), _RecordedNames(teacher.features)
    recorded = step._replace(
        student=step.student._replace(features=read[0]), teacher=teacher._replace(features=read[1])
    )
    case.make_loss(step)(recorded)
    infos = get_feature_infos(step.student), get_feature_infos(teacher)
    for role, own, names in (("student", 0, read[0].names), ("teacher", 1, read[1].names)):
        for name in dict.fromkeys(n for n in names if n != "kd_logits"):  # every network has it
            lacking = [dict(features) for features in infos]
            del lacking[own][name]
            _check_setup_refuses(case.build(), lacking[0], lacking[1], f"a {role} without the feature '{name}'")


def _check_setup_refuses(loss: Loss, student: FeatureInfos, teacher: FeatureInfos, what: str) -> None:
    cure = "use segkd.losses.features.get_feature(features, name, role), which raises a UserError"
    try:
        loss.setup(student, teacher)
    except UserError:
        return
    except Exception as error:
        raise ContractFault(f"setup answers {what} with {describe_crash(error)}; {cure}") from error
    raise ContractFault(f"setup accepts {what}, which the loss reads; {cure}")


def check_weight(case: LossCase) -> None:
    """The constructor takes a weight, keeps it, and refuses one that would teach the opposite."""
    try:
        loss = case.build(weight=2.0)
    except TypeError:
        raise NotApplicable("it cannot be built with another weight") from None
    require(
        loss.weight == 2, f"built with weight=2.0 it has the weight {loss.weight}; pass it on: super().__init__(weight)"
    )
    require(case.build(weight=0.0).weight == 0, "it does not take weight=0.0, which switches a loss off")
    for weight in (-0.5, math.nan):
        try:
            case.build(weight=weight)
        except (ValueError, UserError):
            continue
        raise ContractFault(
            f"it takes weight={weight}, which teaches the opposite; pass it on: super().__init__(weight)"
        )


def check_compiles(case: LossCase) -> None:
    """Compile the loss as one graph, which does not wait for a value."""
    torch.compiler.reset()
    step, cure = case.make_step(), "keep Python numbers and branches on values out of forward"
    eager = case.compute(step)
    try:
        compiled: Tensor = torch.compile(case.make_loss(step), backend="aot_eager", fullgraph=True)(step)
    except Exception as error:
        raise ContractFault(f"torch.compile makes no single graph of it: {describe_crash(error)}; {cure}") from error
    require_close(compiled, eager, "the compiled loss", cure)
    for ours, theirs in zip(compute_gradients(compiled, step), compute_gradients(eager, step), strict=True):
        require_close(ours, theirs, "the compiled loss's gradient", cure)


def _name_tensors(step: Step) -> list[tuple[str, Tensor]]:
    maps = [(f"the student's {name}", tensor) for name, tensor in step.student.features.items()]
    maps += [(f"the teacher's {name}", tensor) for name, tensor in get_teacher(step).features.items()]
    return [*maps, *((f"batch.{name}", tensor) for name, tensor in step.batch._asdict().items())]


def _list_tensors(step: Step) -> list[Tensor]:
    return [tensor for _, tensor in _name_tensors(step)]
