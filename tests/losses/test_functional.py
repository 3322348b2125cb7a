"""Losses as functions of tensors: those of the modules, in value, gradient and defaults, and what they refuse."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.check_part.steps import get_feature_infos, make_step
from segkd.config.instantiate import parse_spec
from segkd.config.targets import resolve_target
from segkd.losses import functional
from segkd.losses.base import Loss
from segkd.losses.cirkd_memory import Queue
from segkd.losses.regions import gather_positions, sample_evenly
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers.losses import SPECS

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    name: getattr(functional, f"{name}_loss") for name in SPECS if hasattr(functional, f"{name}_loss")
}
LABEL_LOSSES = ["cross_entropy", "lovasz"]
MAP_LOSSES = sorted(FUNCTIONS.keys() - {*LABEL_LOSSES, "cirkd_memory"})
"""Those of a student's and a teacher's map."""
CLASS_LOSSES, CHANNEL_LOSSES = ["dist", "pixelwise"], ["channelwise", "hint"]


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as `make_step`'s networks do."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def make_loop_step() -> Step:
    """Make a step whose teacher has another stride, with padding and unlabeled pixels."""
    step = make_step(size=(7, 9))._replace(teacher=make_step(size=(8, 10), seed=1).teacher)
    step.batch.valid[0, :, 40:] = False
    step.batch.target[1, 30:] = IGNORE_INDEX
    step.batch.target[~step.batch.valid] = IGNORE_INDEX
    return step


def call(name: str, step: Step, loss: Any, **options: Any) -> Tensor:
    """Call the function of a loss as a training loop would that has no `Step`; `loss` lends its projector and queues."""
    assert step.teacher is not None
    function, (_, target, valid, _) = FUNCTIONS[name], step.batch
    logits, features = step.student.features["kd_logits"], step.student.features["encoder"]
    teacher_logits, teacher_features = (enlarge(step.teacher.features[key], (7, 9)) for key in ("kd_logits", "encoder"))
    match name:
        case "cross_entropy" | "lovasz":
            return function(enlarge(logits, (56, 72)), target, **options)
        case "pixelwise" | "channelwise" | "dist":
            return function(logits, teacher_logits, valid, **options)
        case "hint":
            return function(loss.projector(features), teacher_features, valid, **options)
        case "ifvd":
            return function(features, teacher_features, target, num_classes=5, **options)
        case "cirkd_memory":
            classes = F.interpolate(target[:, None].float(), (7, 9), mode="nearest-exact").flatten(1)
            positions, exist = sample_evenly(classes != IGNORE_INDEX, 7 * 9)
            maps = (gather_positions(maps.flatten(2).mT, positions) for maps in (features, teacher_features))
            memories = [
                loss.pixel_memory.sample(820),
                loss.region_memory.sample(205),
            ]  # of 4096 and 1024, for 5 classes
            return function(loss.projector(next(maps)), next(maps), memories, exist, **options)
        case _:
            return function(features, teacher_features, valid, **options)


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{"ohem": 0.3, "class_weights": [0.2, 3.0, 0.0, 1.0, 7.0]}],
    "pixelwise": [{"temperature": 2.5}],
    "channelwise": [{"temperature": 1.0}],
    "pairwise": [{"node_size": 3, "pooling": "max"}],
    "cirkd": [{"temperature": 0.5, "max_positions": 10}],
    "dist": [{"inter": 0.3, "intra": 2.0}],
}
CASES = [(name, options) for name in SPECS for options in [{}, *OPTIONS.get(name, [])]]


def make_loss(name: str, step: Step, options: dict[str, Any]) -> Loss:
    """Build the loss of a run, always with the same weights."""
    assert step.teacher is not None
    torch.manual_seed(0)
    loss: Loss = parse_spec({**SPECS[name], **options}).build()
    loss.setup(get_feature_infos(step.student), get_feature_infos(step.teacher))
    return loss


def test_every_loss_is_a_function() -> None:
    assert {f"{name}_loss" for name in SPECS} == set(functional.__all__)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_value_and_gradients_are_those_of_the_loss(name: str, options: dict[str, Any]) -> None:
    """To the last bit, in a step whose projectors get gradients too."""
    step = make_loop_step()
    loss = make_loss(name, step, options)
    value, other = loss(step), call(name, step, loss, **options)
    assert value > 0
    assert torch.equal(value, other)
    leaves = [*step.student.features.values(), *loss.parameters()]
    gradients, others = (torch.autograd.grad(v, leaves, allow_unused=True) for v in (value, other))
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    for gradient, expected in zip(others, gradients, strict=True):
        assert (gradient is None) == (expected is None)
        assert gradient is None or torch.equal(gradient, expected)
    if options:
        assert call(name, step, loss) != value


@pytest.mark.parametrize("name", SPECS)
def test_the_loss_calls_the_function(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = make_loop_step()
    loss = make_loss(name, step, {})
    module = importlib.import_module(type(loss).__module__)
    monkeypatch.setattr(module, f"{name}_loss", lambda *arguments, **options: torch.tensor(17.0))
    assert loss(step) == 17


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_are_those_of_the_loss(name: str) -> None:
    kind = resolve_target(SPECS[name]["_target_"])
    expected = {key: p.default for key, p in inspect.signature(kind).parameters.items()}
    defaults = {key: p.default for key, p in inspect.signature(FUNCTIONS[name]).parameters.items()}
    assert defaults.get("valid") is None
    assert {k: v for k, v in defaults.items() if k in expected} == {k: expected[k] for k in defaults if k in expected}
    assert defaults.get("ignore_index", IGNORE_INDEX) == IGNORE_INDEX


def make_maps(name: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return a student's map, a teacher's, and further arguments of a loss of two maps."""
    equal = name in CLASS_LOSSES + CHANNEL_LOSSES
    student, teacher = torch.randn(2, 5, 6, 8, requires_grad=True), torch.randn(2, 5 if equal else 7, 6, 8)
    more = {"target": torch.randint(0, 3, (2, 48, 64)), "num_classes": 3} if name == "ifvd" else {}
    return student, teacher, more


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_without_a_mask_every_position_counts(name: str) -> None:
    student, teacher, more = make_maps(name)
    valid = torch.ones(2, 48, 64, dtype=torch.bool)
    value = FUNCTIONS[name](student, teacher, **more)
    assert value == FUNCTIONS[name](student, teacher, valid=valid, **more)
    valid[:, :, 32:] = False
    half = FUNCTIONS[name](student, teacher, valid=valid, **more)
    assert half != value
    assert half == FUNCTIONS[name](student, teacher, valid=valid[:, ::8, ::8], **more)  # at any resolution
    nothing = FUNCTIONS[name](student, teacher, valid=torch.zeros_like(valid), **more)
    assert nothing == 0
    assert (torch.autograd.grad(nothing, student)[0] == 0).all()


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_only_the_student_gets_gradients(name: str) -> None:
    student, teacher, more = make_maps(name)
    teacher.requires_grad_()
    FUNCTIONS[name](student, teacher, **more).backward()
    assert student.grad is not None
    assert student.grad.norm() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("name", [*MAP_LOSSES, *LABEL_LOSSES])
def test_sums_in_float32_under_autocast(name: str) -> None:
    student, teacher, more = make_maps(name)
    student, teacher = student.detach().bfloat16(), teacher.bfloat16()
    if name in LABEL_LOSSES:
        teacher = torch.randint(0, 5, (2, 6, 8))
    expected = FUNCTIONS[name](student.float(), teacher if name in LABEL_LOSSES else teacher.float(), **more)
    with torch.autocast("cpu", torch.bfloat16):
        assert FUNCTIONS[name](student, teacher, **more) == expected


@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_any_integers_and_any_ignore_index(name: str) -> None:
    """PNG files give uint8; PyTorch's own ignore_index is −100, and 0 is the void of some datasets."""
    logits, target = torch.randn(2, 5, 6, 8), torch.randint(1, 5, (2, 6, 8))
    target[0, :3] = IGNORE_INDEX
    value = FUNCTIONS[name](logits, target)
    assert FUNCTIONS[name](logits, target.to(torch.uint8)) == value
    for void in (-100, 0):
        assert FUNCTIONS[name](logits, target.masked_fill(target == IGNORE_INDEX, void), ignore_index=void) == value
    assert FUNCTIONS[name](logits, target.masked_fill(target == IGNORE_INDEX, 0)) != value


def test_ifvd_takes_any_ignore_index() -> None:
    student, teacher, more = make_maps("ifvd")
    target = more["target"]
    target[0, :20] = IGNORE_INDEX
    value = functional.ifvd_loss(student, teacher, target, 3)
    assert functional.ifvd_loss(student, teacher, target.masked_fill(target == IGNORE_INDEX, -1), 3, None, -1) == value
    assert value != functional.ifvd_loss(student, teacher, target.clamp(max=2), 3)


X, Y = torch.zeros(2, 5, 6, 8), torch.zeros(2, 6, 8, dtype=torch.int64)
CURES: dict[str, tuple[list[str], tuple[Any, ...], str]] = {
    "dict": (
        MAP_LOSSES,
        ({"out": X}, X),
        "the student's map must be a tensor, not a dict; pass the logits or a feature",
    ),
    "labels": (
        MAP_LOSSES,
        (X, Y),
        "the teacher's map must be floating-point numbers, not int64; pass it before any argmax",
    ),
    "one image": (
        MAP_LOSSES,
        (X[0], X[0]),
        r"must be B C h w, not of shape \(5, 6, 8\); pass a single image as maps\[None\]",
    ),
    "batch": (
        MAP_LOSSES,
        (X, X[:1]),
        "the student's map has 2 images and the teacher's 1; pass both networks the same",
    ),
    "size": (
        MAP_LOSSES,
        (X, X[..., :4]),
        r"is 6×8 and the teacher's 6×4; resize one first, as in F.interpolate\(teacher, size=\(6, 8\)",
    ),
    "classes": (
        CLASS_LOSSES,
        (X, X[:, :3]),
        "has 5 classes and the teacher's 3; compare networks with the same classes",
    ),
    "one class": (
        CLASS_LOSSES,
        (X[:, :1], X[:, :1]),
        r"one channel have a constant softmax; pass two, as in torch.cat\(",
    ),
    "channels": (CHANNEL_LOSSES, (X, X[:, :3]), r"5 channels and the teacher's 3; .* a trained nn.Conv2d\(5, 3, 1\)"),
    "mask of numbers": (MAP_LOSSES, (X, X, X[:, 0]), "valid must be bool, not float32; pass a mask such as valid > 0"),
    "option in place of a mask": (MAP_LOSSES, (X, X, 4.0), "valid must be a tensor, not a float; .* options by name"),
    "mask of another batch": (
        MAP_LOSSES,
        (X, X, X[:1, 0] == 0),
        r"valid must be B H W of the same 2 images, not of shape \(1, 6, 8\)",
    ),
    "mask with channels": (
        MAP_LOSSES,
        (X, X, X[:, :1] == 0),
        r"not of shape \(2, 1, 6, 8\); valid.squeeze\(1\) removes",
    ),
    "logits and target": (
        LABEL_LOSSES,
        (X, Y[:, :3]),
        r"logits are 6×8 and target is 3×8; enlarge the logits first, as in F.interpolate\(logits, size=\(3, 8\)",
    ),
    "soft target": (
        LABEL_LOSSES,
        (X, X[:, 0]),
        r"target must be class indices, not float32; pass integers, such as target.long\(\)",
    ),
    "target with channels": (LABEL_LOSSES, (X, Y[:, None]), r"not of shape \(2, 1, 6, 8\); target.squeeze\(1\)"),
    "unknown label": (
        LABEL_LOSSES,
        (X, Y + 34),
        "target has the label 34, and there are 5 classes; map labels to 0..4, and what should not count to 255",
    ),
    "binary": (LABEL_LOSSES, (X[:, :1], Y), "logits of one channel have a constant softmax"),
}


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, (names, *_) in CURES.items() for name in names])
def test_tensors_that_do_not_fit_are_refused(case: str, name: str) -> None:
    _, (first, second, *valid), message = CURES[case]
    options: dict[str, Any] = {"valid": valid[0]} if valid else {}
    if name == "ifvd":
        options |= {"target": Y, "num_classes": 3}
    with pytest.raises(ValueError, match=message) as error:
        FUNCTIONS[name](first, second, **options)
    assert "\n" not in str(error.value)
    assert len(re.findall(r"\.\s", str(error.value))) == 0  # one sentence


ARGUMENTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "temperature": ("pixelwise", {"temperature": 0}, "temperature must be positive, not 0"),
    "not a number": ("channelwise", {"temperature": float("nan")}, "temperature must be positive, not nan"),
    "positions": ("cirkd", {"max_positions": 0}, "max_positions must be 1 or more, not 0"),
    "nodes": ("pairwise", {"node_size": 0}, "node_size must be 1 or more, not 0"),
    "pooling": ("pairwise", {"pooling": "sum"}, "pooling is 'mean' or 'max', not 'sum'"),
    "hard pixels": ("cross_entropy", {"ohem": 2}, "ohem is a probability, above 0 and at most 1, or null, not 2"),
    "weights": (
        "cross_entropy",
        {"class_weights": [1.0, 2.0]},
        r"class_weights has the shape \(2,\); give one for each of 5 classes",
    ),
    "labels of ifvd": ("ifvd", {"target": Y + 7, "num_classes": 5}, "target has the label 7, and there are 5 classes"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments_are_refused(case: str) -> None:
    name, options, message = ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](X, Y if name in LABEL_LOSSES else X, **options)


def test_positions_and_memories_that_do_not_fit_are_refused() -> None:
    maps, positions, queue = torch.randn(2, 4, 3, 3), torch.randn(2, 9, 4), Queue(2, size=3, channels=4)
    memory = queue.sample(2)
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((maps, maps, [memory]), r"student must be B n C, .* not of shape \(2, 4, 3, 3\); pass maps.flatten\(2\).mT"),
        ((positions[..., :3], positions, [memory]), "the student's through a trained projector"),
        (
            (positions, positions, [(memory[0][:, :3], memory[1])]),
            r"V × 4 .* not of shapes \(4, 3\) and \(4,\); pass what",
        ),
        (
            (positions, positions, [memory], positions[..., 0]),
            r"valid must be bool of shape \(2, 9\), not float32 of \(2, 9\)",
        ),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            functional.cirkd_memory_loss(*arguments)


def test_names_of_the_first_version() -> None:
    student, teacher = torch.randn(2, 5, 6, 8), torch.randn(2, 5, 6, 8)
    assert functional.pixelwise_kl(student, teacher) == functional.pixelwise_loss(student, teacher)
    assert functional.pairwise_affinity_loss(student, teacher) == functional.pairwise_loss(student, teacher)
    assert functional.local_affinity_loss(student, teacher) == functional.local_loss(student, teacher)
    # The default was 1 there, and is that of the loss here.
    assert functional.channelwise_kl(student, teacher) == functional.channelwise_loss(student, teacher, temperature=1.0)
    assert functional.channelwise_kl(student, teacher) != functional.channelwise_loss(student, teacher)
    assert {"safe_normalize", "downsample_mask", "at_least_float32"} <= set(dir(functional))


def run_example(owner: Any, names: dict[str, Any]) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(owner, owner.__name__, globs=names)
    assert test.examples, f"{owner.__name__} has no example"
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example_of_the_function_runs(name: str) -> None:
    run_example(FUNCTIONS[name], {"torch": torch, "nn": nn, f"{name}_loss": FUNCTIONS[name], "Queue": Queue})
    documentation = inspect.getdoc(FUNCTIONS[name]) or ""
    assert all(f"    {parameter}: " in documentation for parameter in inspect.signature(FUNCTIONS[name]).parameters)


@pytest.mark.parametrize("name", SPECS)
def test_example_in_the_docstring_runs(name: str) -> None:
    kind = resolve_target(SPECS[name]["_target_"])
    step = make_step()
    infos = {key: FeatureInfo(maps.shape[1], 8) for key, maps in step.student.features.items()}
    step = step._replace(
        teacher=step.student._replace(features={k: v.detach() for k, v in step.student.features.items()})
    )
    run_example(kind, {kind.__name__: kind, "step": step, "features": infos})
    assert "Shape:" in kind.__doc__


def test_example_in_the_documentation_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "losses.md").read_text()
    names: dict[str, Any] = {}
    exec(page.split("## As functions")[1].split("```python\n")[1].split("```")[0], names)
    assert names["loss"] > 0
    assert names["logits"].grad.norm() > 0
    assert names["features"].grad.norm() > 0
    assert all(f"`{name}_loss`" in page for name in SPECS)
