"""What passes between the parts.

Shape letters, everywhere: B images, C channels, K classes, H W height and width (h w at a network's own stride).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = 255
"""The label of a pixel that has none. Every data set maps its void to it."""


class FeatureInfo(NamedTuple):
    """What is known of a network's inner map before any image is seen."""

    channels: int
    stride: int


FeatureInfos = Mapping[str, FeatureInfo]


class Batch(NamedTuple):
    """Images with their labels. One sample is a `Batch` without the B axis, so that stacking samples gives a batch."""

    images: Tensor
    """B 3 H W, RGB, 0..255 (uint8 from the data sets). Every network normalises for itself."""
    target: Tensor
    """B H W int64: a class, or IGNORE_INDEX."""
    valid: Tensor
    """B H W bool: false where augmentation padded. Distillation counts the rest, labelled or not."""
    seeds: Tensor
    """B int64: one number per drawn sample, a function of (seed, epoch, index). All randomness of a step comes from it."""


class NetworkOutput(NamedTuple):
    """What a network says of a batch."""

    logits: Tensor
    """B K h w: class scores, unnormalised, at the network's own resolution."""
    features: dict[str, Tensor]
    """Named inner maps, B C h w."""
    align_corners: bool
    """How this network's family enlarges its maps."""

    def logits_at(self, size: tuple[int, int]) -> Tensor:
        """The logits at another size, B K H W."""
        return resize(self.logits, size, self.align_corners)


class Step(NamedTuple):
    """All that a loss may read."""

    batch: Batch
    student: NetworkOutput
    teacher: NetworkOutput | None
    repeat: int = 0
    """How often the current phase has seen this batch before."""
    progress: float = 0.0
    """Share of the training's steps that are done, 0..1."""


def resize(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear resize of B C h w to B C H W; the same tensor where the size is right."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)
