"""Losses that break one line of the contract each, with what must be said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss, Loss
from segkd.losses.distributed import global_mean, global_sum
from segkd.losses.features import align_features
from segkd.types import IGNORE_INDEX, FeatureInfos, Step, resize


class Formula(Loss):
    """A loss of a formula in the student's and the teacher's logits, times a value that no state dict holds."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Any], hidden: Tensor | None = None) -> None:
        super().__init__()
        self.formula, self.hidden = formula, torch.tensor(1.0) if hidden is None else hidden

    def forward(self, step: Step) -> Tensor:
        assert step.teacher is not None
        return self.formula(step.student.logits, step.teacher.logits) * self.hidden


class LabeledFormula(Formula):
    """The same, times the fraction of labeled pixels."""

    def forward(self, step: Step) -> Tensor:
        return super().forward(step) * (step.batch.target != IGNORE_INDEX).float().mean()


class FeatureL1(FeatureLoss):
    """A loss without fault, as in the documentation."""

    def __init__(self, weight: float = 1.0, feature: str = "encoder") -> None:
        super().__init__(weight, feature)

    def forward(self, step: Step) -> Tensor:
        student, teacher, valid = align_features(step, self.feature, self.feature)
        distance = (student.abs().mean(1) - teacher.abs().mean(1)).abs()
        return self.reduce((distance * valid).sum(), valid.sum())

    def reduce(self, total: Tensor, count: Tensor) -> Tensor:
        return global_mean(total, count)


class LocalMean(FeatureL1):
    def reduce(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count.clamp(min=1)


class UnequalReductions(FeatureL1):
    """Reduces on the processes that have a padded image only."""

    def forward(self, step: Step) -> Tensor:
        value = super().forward(step)
        return value if step.batch.valid.all() else value + 0 * global_sum(value)


class Unmasked(FeatureL1):
    def forward(self, step: Step) -> Tensor:
        student, teacher, valid = align_features(step, self.feature, self.feature)
        distance = (student.abs().mean(1) - teacher.abs().mean(1)).abs()
        return global_mean(distance.sum(), torch.tensor(distance.numel())) * valid.any()


class Noisy(FeatureL1):
    def forward(self, step: Step) -> Tensor:
        return super().forward(step) * (1 + torch.rand(()))


class Overwriting(FeatureL1):
    def forward(self, step: Step) -> Tensor:
        value = super().forward(step)
        assert step.teacher is not None
        step.teacher.features["encoder"].data.zero_()
        return value


class Normalizing(FeatureL1):
    """Divides by the norm of the student's map, which may be zero."""

    def forward(self, step: Step) -> Tensor:
        student, teacher, valid = align_features(step, self.feature, self.feature)
        unit = student.square().sum(1).clamp(min=1e-24).sqrt()
        distance = (student.sum(1) / unit - teacher.sum(1) / teacher.norm(dim=1)).square()
        return global_mean((distance * valid).sum(), valid.sum())


class NamedFeature(FeatureL1):
    """Reads a feature that `setup` does not ask for."""

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        pass


class CrashingSetup(FeatureL1):
    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        assert student["encoder"].stride == teacher["encoder"].stride


class LateProjector(FeatureL1):
    def forward(self, step: Step) -> Tensor:
        self.projector = torch.nn.Conv2d(12, 20, 1)
        return super().forward(step)


class LazyProjector(FeatureL1):
    """A projector that gets its shape, and its random weights, in the first step."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.projector = torch.nn.LazyConv2d(12, 1)

    def forward(self, step: Step) -> Tensor:
        return super().forward(step) + 0 * self.projector(step.student.features["encoder"]).sum()


class AutocastProjector(FeatureL1):
    """A projector of plain layers, which autocast computes in bfloat16."""

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        super().setup(student, teacher)
        assert teacher is not None
        self.projector = torch.nn.Conv2d(student["encoder"].channels, teacher["encoder"].channels, 1)

    def forward(self, step: Step) -> Tensor:
        student, teacher, _ = align_features(step, "encoder", "encoder")
        return square_difference(self.projector(student), teacher).mean().float()


class IdleProjector(FeatureL1):
    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        super().setup(student, teacher)
        self.projector = torch.nn.Conv2d(12, 20, 1)


class Returns(Loss):
    """Returns what is no scalar tensor."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, step: Step) -> Any:
        return self.value


class DividesByCount(FeatureL1):
    def reduce(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count


class ConstantZero(FeatureL1):
    def reduce(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count if count > 0 else torch.tensor(0.0)


class NeedlessTeacher(FeatureL1):
    needs_teacher = False


class OtherClasses(FeatureL1):
    """Says that any teacher will do, and compares logits."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight, "kd_logits")

    def forward(self, step: Step) -> Tensor:
        student, teacher, valid = align_features(step, self.feature, self.feature)
        return global_mean(((student - teacher).square().mean(1) * valid).sum(), valid.sum())


class ForgetsItsWeight(FeatureL1):
    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()


class AnyWeight(FeatureL1):
    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight


def square_difference(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


def make_formula(formula: Callable[[Tensor, Tensor], Any], kind: type[Formula] = Formula) -> Callable[[], Loss]:
    return lambda: kind(formula)


# Line of the contract → losses that break it, each with what must be said.
FAULTY: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "returns_a_scalar": [
        (make_formula(lambda s, t: square_difference(s, t)), "a tensor of shape 3×5×6×8; return a scalar"),
        (lambda: Returns(0.5), "an object of type float; return one tensor"),
        (lambda: Returns((torch.tensor(0.5), {})), "an object of type tuple; return one tensor"),
        (lambda: Returns(None), "an object of type NoneType"),
        (lambda: Returns(torch.tensor(1)), r"torch.int64; return float32"),
        (make_formula(lambda s, t: square_difference(s.detach(), t.detach()).mean()), "cannot be differentiated"),
        (
            make_formula(lambda s, t: square_difference(s.detach(), t).mean() + 0 * s.sum()),
            "gives no gradient to any map",
        ),
        (make_formula(lambda s, t: (s - t).log().mean()), "the loss is nan on maps of random numbers"),
        (make_formula(lambda s, t: s @ t), rf"RuntimeError: .*\({__file__}:\d+\)"),
    ],
    "reproducible": [(Noisy, r"is 0\.\d+ instead of 0\.\d+; draw random numbers from step.batch.seeds")],
    "odd_sizes": [
        (make_formula(lambda s, t: square_difference(s, t.detach()).mean()), "RuntimeError: The size of tensor")
    ],
    "nothing_valid": [
        (
            make_formula(lambda s, t: square_difference(s, t.detach()).mean()),
            r"the loss is 2\.\d+ where no pixel is valid",
        ),
        (DividesByCount, "the loss is nan where no pixel is valid"),
        (ConstantZero, "cannot be differentiated where no pixel is valid"),
    ],
    "zero_at_equality": [
        (
            make_formula(lambda s, t: F.cross_entropy(s, t.softmax(1))),
            r"the loss is 1\.\d+ where student and teacher are equal",
        )
    ],
    "batch_invariance": [
        (
            make_formula(lambda s, t: square_difference(s, t).mean((1, 2, 3)).sum()),
            r"given twice is 12\.\d+ instead of 6\.\d+",
        )
    ],
    "crop_invariance": [
        (
            make_formula(lambda s, t: F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean")),
            r"tiled with a crop is \d+\.\d+ instead of \d+\.\d+; return the mean over the valid pixels",
        )
    ],
    "process_invariance": [
        (LocalMean, r"the averaged gradient is another than that of the whole batch, by \d+(\.\d+)? %"),
        (UnequalReductions, "one of two processes makes a reduction that the other does not make"),
    ],
    "padding_does_not_matter": [(Unmasked, r"other values at padded positions is \d\.\d+ instead of 0\.\d+")],
    "labels_do_not_matter": [
        (
            make_formula(lambda s, t: square_difference(s, t).mean(), LabeledFormula),
            r"of unlabeled images is 0 instead of 2\.",
        )
    ],
    "only_the_student_gets_gradients": [
        (make_formula(lambda s, t: square_difference(s, t).mean()), "the teacher's kd_logits gets a gradient")
    ],
    "leaves_the_step_unchanged": [(Overwriting, "the loss overwrites the teacher's encoder, which other losses read")],
    "sums_in_float32": [
        (
            make_formula(lambda s, t: square_difference(s, F.interpolate(t, s.shape[2:])).mean().float()),
            r"maps in bfloat16 is \d\.\d+ instead of \d\.\d+; the same values in float32",
        ),
        (
            make_formula(
                lambda s, t: square_difference(s, resize(t, s.shape[2:], True)).mean() * float(s.detach().numpy().size)
            ),
            "BFloat16",
        ),
        (
            AutocastProjector,
            r"call layers of the loss in `with torch\.autocast\(student\.device\.type, enabled=False\):`",
        ),
    ],
    "zero_features": [(Normalizing, r"the gradient is up to .*e\+\d+ where all channels of a position are zero")],
    "teacher_is_resized_by_its_own_convention": [
        (
            make_formula(lambda s, t: square_difference(resize(s, (56, 72), True), resize(t, (56, 72), False)).mean()),
            "align_corners=True is",
        ),
        (
            make_formula(lambda s, t: square_difference(s, resize(t, s.shape[2:], True)).mean()),
            "align_corners=False is",
        ),
    ],
    "teacher_of_other_classes": [(OtherClasses, "RuntimeError: The size of tensor a")],
    "works_without_teacher": [(NeedlessTeacher, "setup|AssertionError|this loss compares with a teacher")],
    "refuses_missing_features": [
        (NamedFeature, "setup accepts a student without the feature 'encoder', which the loss reads"),
        (CrashingSetup, rf"with KeyError: 'encoder' \({__file__}:\d+\); use .*get_feature"),
    ],
    "parameters": [
        (LateProjector, "forward creates projector.weight, projector.bias, of which no optimizer knows"),
        (LazyProjector, "forward creates projector.weight, projector.bias"),
        (IdleProjector, "projector.weight, projector.bias gets no gradient"),
    ],
    "state_dict_round_trip": [
        (lambda: Formula(lambda s, t: square_difference(s, t).mean(), torch.rand(())), "after loading the state dict")
    ],
    "weight": [
        (ForgetsItsWeight, r"built with weight=2.0 it has the weight 1.0; pass it on"),
        (AnyWeight, "it takes weight=-0.5, which teaches the opposite"),
    ],
    "compiles": [
        (
            make_formula(
                lambda s, t: square_difference(s, t).mean() if s.sum().item() > 0 else square_difference(s, t).sum()
            ),
            rf"torch.compile makes no single graph of it: .*\({__file__}:\d+\); keep Python numbers",
        )
    ],
}
