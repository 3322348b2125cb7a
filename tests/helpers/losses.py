"""The losses that have a yaml, built for a step, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from segkd.config.instantiate import parse_spec
from segkd.losses.base import Loss
from segkd.types import FeatureInfo, NetworkOutput, Step

YAMLS = sorted((Path(__file__).parents[2] / "configs" / "loss").glob("*.yaml"))
SPECS: dict[str, dict[str, Any]] = {
    name: spec for path in YAMLS for name, spec in yaml.safe_load(path.read_text()).items()
}

LossFactory = Callable[[Step], Loss]
"""Builds a loss and sets it up for the features of a step."""


def make_factory(spec: dict[str, Any]) -> LossFactory:
    """Return a factory of the loss of a config."""

    def make_loss(step: Step) -> Loss:
        assert step.teacher is not None
        loss: Loss = parse_spec(spec).build()
        loss.setup(get_feature_infos(step.student), get_feature_infos(step.teacher))
        return loss

    return make_loss


def make_seeded(make_loss: LossFactory, step: Step) -> Loss:
    """Build a loss with the same random weights each time."""
    torch.manual_seed(0)
    return make_loss(step)


def get_feature_infos(output: NetworkOutput) -> dict[str, FeatureInfo]:
    """Return the features as a network would declare them."""
    return {name: FeatureInfo(maps.shape[1], 8) for name, maps in output.features.items()}


def compute_gradients(loss: Tensor, step: Step) -> list[Tensor]:
    """Return the gradients of the student's maps that the loss reads."""
    gradients = torch.autograd.grad(loss, list(step.student.features.values()), allow_unused=True)
    return [gradient for gradient in gradients if gradient is not None]
