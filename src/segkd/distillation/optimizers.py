"""Optimizers of the phases, where none are given: those of configs/optimizer/adam.yaml and discriminator_adam.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Adam, Optimizer

OptimizerFactory = Callable[[Sequence[nn.Parameter]], Optimizer]


def group_by_decay(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Return parameter groups of which only matrices decay: decay of scales, slopes and biases removes filters, helps nothing."""
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_student_adam(parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Return the student's default optimizer."""
    return Adam(group_by_decay(parameters), lr=5e-4, betas=(0.9, 0.999), weight_decay=5e-4)


def build_discriminator_adam(parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Return the discriminator's default optimizer."""
    return Adam(group_by_decay(parameters), lr=4e-4, betas=(0.9, 0.99))


DEFAULT_OPTIMIZERS: Mapping[str, OptimizerFactory] = {
    "student": build_student_adam,
    "discriminator": build_discriminator_adam,
}
"""Phase → factory."""
