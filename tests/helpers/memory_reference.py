"""CIRKD's memory terms by the paper's formula in float64, with queues that are lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from segkd.losses.cirkd_memory import CIRKDMemory
from segkd.types import IGNORE_INDEX, FeatureInfo, Step
from tests.helpers.loss_references import Array, compute_divergence, compute_softmax

CLASSES, TEMPERATURE = 3, 0.5
PIXEL_QUEUE, REGION_QUEUE, PIXEL_SAMPLES, REGION_SAMPLES, PIXELS_PER_CLASS, MAX_POSITIONS = 7, 3, 4, 2, 3, 5
"""Sizes of the queues, samples of a class, and what an image adds and compares: two steps exceed all of them."""


def make_memory_loss(student_channels: int = 5, teacher_channels: int = 6, class_source: str = "labels") -> CIRKDMemory:
    """Make the loss with these sizes, set up, in float64, always with the same projector."""
    torch.manual_seed(0)
    loss = CIRKDMemory(
        temperature=TEMPERATURE,
        pixel_queue=PIXEL_QUEUE,
        region_queue=REGION_QUEUE,
        num_pixel_samples=CLASSES * PIXEL_SAMPLES,
        num_region_samples=CLASSES * REGION_SAMPLES - 2,  # shared evenly, and rounded up
        pixels_per_class=PIXELS_PER_CLASS,
        max_positions=MAX_POSITIONS,
        class_source=class_source,
    )
    teacher = {"encoder": FeatureInfo(teacher_channels, 8), "kd_logits": FeatureInfo(CLASSES, 8)}
    loss.setup({"encoder": FeatureInfo(student_channels, 8)}, teacher)
    return loss.double()


def compute_cirkd_memory(student: Array, steps: Sequence[Step], loss: CIRKDMemory) -> float:
    """Return the value at the last of the steps, with these student maps and queues filled by all of them."""
    pixels: dict[int, list[Array]] = {k: [] for k in range(CLASSES)}
    regions: dict[int, list[Array]] = {k: [] for k in range(CLASSES)}
    for step in steps:
        assert step.teacher is not None
        classes = step.batch.target.masked_fill(~step.batch.valid, IGNORE_INDEX).numpy()
        teacher = step.teacher.features["encoder"].numpy()
        for image in range(len(classes)):
            for k in range(CLASSES):
                units = [_normalize(teacher[image, :, y, x]) for y, x in np.argwhere(classes[image] == k)]
                if units:
                    pixels[k] = (pixels[k] + _sample_evenly(units, PIXELS_PER_CLASS))[-PIXEL_QUEUE:]
                    regions[k] = [*regions[k], _normalize(np.mean(units, axis=0))][-REGION_QUEUE:]
    positions = [
        (image, y, x)
        for image in range(len(classes))
        for y, x in _sample_evenly(list(np.argwhere(classes[image] != IGNORE_INDEX)), MAX_POSITIONS)
    ]
    first, second = (layer.weight.detach().numpy() for layer in (loss.projector[0], loss.projector[2]))  # type: ignore[index]

    def compute_mean_divergence(queues: dict[int, list[Array]], count: int) -> float:
        samples = np.array([entry for queue in queues.values() for entry in _sample_evenly(queue[::-1], count)])
        divergences = []
        for image, y, x in positions:
            projected = second @ np.maximum(first @ student[image, :, y, x], 0)
            p, q = (
                compute_softmax(samples @ _normalize(vector) / TEMPERATURE)
                for vector in (teacher[image, :, y, x], projected)
            )
            divergences.append(compute_divergence(p, q))
        return float(np.mean(divergences))

    return compute_mean_divergence(pixels, PIXEL_SAMPLES) + compute_mean_divergence(regions, REGION_SAMPLES)


def _sample_evenly(entries: list[Array], count: int) -> list[Array]:
    """Return all, or the `count` in the middles of as many equal parts."""
    if len(entries) <= count:
        return entries
    return [entries[int((part + 0.5) * len(entries) / count)] for part in range(count)]


def _normalize(vector: Array) -> Array:
    return vector / np.sqrt(vector @ vector)
