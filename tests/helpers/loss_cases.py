"""The losses that compare two networks, each with its paper's formula, and a step with padding and void to compare them on."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.losses.base import Loss
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers import loss_references as references
from tests.helpers.loss_references import Array


class Case(NamedTuple):
    """A loss with arguments."""

    name: str
    kind: str
    reference: Callable[..., float]
    teacher_channels: int
    arguments: dict[str, Any] = {}
    """Of the loss and of its reference."""
    feature: str | None = None


CLASSES, FEATURES = 4, 7  # the student's width and another
CASES = {
    "pixelwise": Case("pixelwise", "Pixelwise", references.compute_pixelwise, CLASSES, {"temperature": 2.0}),
    "pairwise": Case("pairwise", "Pairwise", references.compute_pairwise, FEATURES, {"pooling": "mean"}),
    "pairwise with max pooling": Case(
        "pairwise", "Pairwise", references.compute_pairwise, FEATURES, {"pooling": "max"}
    ),
    "channelwise": Case("channelwise", "Channelwise", references.compute_channelwise, CLASSES, {"temperature": 3.0}),
    "channelwise of features": Case(
        "channelwise", "Channelwise", references.compute_channelwise, FEATURES, {"temperature": 3.0}, "encoder"
    ),
    "attention": Case("attention", "Attention", references.compute_attention, FEATURES),
    "hint": Case("hint", "Hint", references.compute_hint, FEATURES),
    "local": Case("local", "Local", references.compute_local, FEATURES),
    "dist": Case("dist", "Dist", references.compute_dist, CLASSES, {"inter": 0.7, "intra": 1.6}),
}


def make_padded_step(teacher_channels: int) -> tuple[Step, Tensor]:
    """Return a step of three images of 5×6, and its valid mask.

    The first is padded on the right and has no labels, the second is padded at the bottom, the third entirely.
    """
    g = torch.Generator().manual_seed(3)
    student, teacher = (
        torch.randn(3, channels, 5, 6, generator=g, dtype=torch.float64) for channels in (CLASSES, teacher_channels)
    )
    valid = torch.ones(3, 5, 6, dtype=torch.bool)
    valid[0, :, 4:] = False
    valid[1, 4:] = False
    valid[2] = False
    target = torch.zeros(3, 5, 6, dtype=torch.int64)
    target[0] = IGNORE_INDEX
    return make_step_from_maps(student.requires_grad_(), teacher, valid=valid, target=target), valid


def get_module(case: Case) -> ModuleType:
    """Return the module of the loss."""
    return importlib.import_module(f"segkd.losses.{case.name}")


def make_case_loss(case: Case, module: ModuleType) -> Loss:
    """Make the loss from a module, set up, in float64, always with the same weights."""
    torch.manual_seed(0)
    loss: Loss = getattr(module, case.kind)(**case.arguments, **({"feature": case.feature} if case.feature else {}))
    student, teacher = FeatureInfo(CLASSES, 8), FeatureInfo(case.teacher_channels, 8)
    loss.setup({"kd_logits": student, "encoder": student}, {"kd_logits": teacher, "encoder": teacher})
    return loss.double()


def get_projector(case: Case) -> dict[str, Array]:
    """Return the projector, an argument of the reference, if the loss has one."""
    state = make_case_loss(case, get_module(case)).state_dict()
    return {key.removesuffix(".weight"): weight[:, :, 0, 0].numpy() for key, weight in state.items()}
