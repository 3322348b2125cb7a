"""Training steps of random or given maps."""

from __future__ import annotations

import torch

from segkd.types import Batch, NetworkOutput, Step


def make_step(
    classes: int = 5,
    features: tuple[int, int] = (12, 20),
    size: tuple[int, int] = (6, 8),
    batch: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Step:
    """Make a step of random maps at 1/8; student and teacher differ in the width of their features."""
    g = torch.Generator().manual_seed(seed)
    height, width = 8 * size[0], 8 * size[1]

    def make_maps(channels: int) -> torch.Tensor:
        return torch.randn(batch, channels, *size, generator=g, dtype=torch.float64).to(dtype)

    def make_output(channels: int) -> NetworkOutput:
        logits = make_maps(classes)
        return NetworkOutput(logits, {"kd_logits": logits, "encoder": make_maps(channels)}, True)

    student, teacher = make_output(features[0]), make_output(features[1])
    for tensor in student.features.values():
        tensor.requires_grad_()
    data = Batch(
        torch.randint(0, 256, (batch, 3, height, width), generator=g, dtype=torch.uint8),
        torch.randint(0, classes, (batch, height, width), generator=g),
        torch.ones(batch, height, width, dtype=torch.bool),
        torch.arange(batch),
    )
    return Step(data, student, teacher)


def make_step_from_maps(student: torch.Tensor, teacher: torch.Tensor, **batch: torch.Tensor) -> Step:
    """Make a step with these maps as all features; by default all pixels are valid and of class 0.

    Args:
        student: B C H W.
        teacher: B C' H W.
        batch: fields of the batch to replace.
    """
    count, _, height, width = student.shape
    data = Batch(
        torch.zeros(count, 3, height, width, dtype=torch.uint8),
        torch.zeros(count, height, width, dtype=torch.int64),
        torch.ones(count, height, width, dtype=torch.bool),
        torch.arange(count),
    )._replace(**batch)
    outputs = (NetworkOutput(maps, {"kd_logits": maps, "encoder": maps}, True) for maps in (student, teacher))
    return Step(data, *outputs)
