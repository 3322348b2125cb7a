"""Training steps of random or given maps, on which a loss is tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from segkd.types import Batch, FeatureInfo, NetworkOutput, Step

STRIDE = 8
"""Of all maps of a step."""


def make_step(
    classes: int = 5,
    features: tuple[int, int] = (12, 20),
    size: tuple[int, int] = (6, 8),
    batch: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    names: Sequence[str] = (),
) -> Step:
    """Make a step of random maps at 1/8; student and teacher differ in the width of their features.

    Args:
        classes: channels of the logits, which are also the feature `kd_logits`.
        features: channels of the student's and of the teacher's other features.
        size: height and width of the maps.
        batch: number of images.
        seed: of all values.
        dtype: of the maps.
        names: features besides `encoder` and `kd_logits`.
    """
    g = torch.Generator().manual_seed(seed)
    height, width = STRIDE * size[0], STRIDE * size[1]

    def make_maps(channels: int) -> Tensor:
        return torch.randn(batch, channels, *size, generator=g, dtype=torch.float64).to(dtype)

    def make_output(channels: int) -> NetworkOutput:
        logits = make_maps(classes)
        inner = {name: make_maps(channels) for name in dict.fromkeys(("encoder", *names)) if name != "kd_logits"}
        return NetworkOutput(logits, {"kd_logits": logits, **inner}, True)

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


def make_step_from_maps(student: Tensor, teacher: Tensor, **batch: Tensor) -> Step:
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
    ours, theirs = (NetworkOutput(maps, {"kd_logits": maps, "encoder": maps}, True) for maps in (student, teacher))
    return Step(data, ours, theirs)


def change_maps(output: NetworkOutput, change: Callable[[Tensor], Tensor]) -> NetworkOutput:
    """Return the output with every map changed; `kd_logits` and the logits stay one tensor."""
    features = {name: change(maps.detach()).requires_grad_() for name, maps in output.features.items()}
    return output._replace(logits=features["kd_logits"], features=features)


def change_all_maps(step: Step, change: Callable[[Tensor], Tensor]) -> Step:
    """Return the step with every map of both networks changed."""
    assert step.teacher is not None
    return step._replace(student=change_maps(step.student, change), teacher=change_maps(step.teacher, change))


def select_images(step: Step, images: slice) -> Step:
    """Return the step of some of its images."""
    selected = change_all_maps(step, lambda maps: maps[images])
    return selected._replace(batch=Batch(*(tensor[images] for tensor in step.batch)))


def get_feature_infos(output: NetworkOutput) -> dict[str, FeatureInfo]:
    """Return the features as a network would declare them."""
    return {name: FeatureInfo(maps.shape[1], STRIDE) for name, maps in output.features.items()}


def compute_gradients(loss: Tensor, step: Step) -> list[Tensor]:
    """Return the gradients of the student's maps that the loss reads."""
    gradients = torch.autograd.grad(loss, list(step.student.features.values()), allow_unused=True)
    return [gradient for gradient in gradients if gradient is not None]
