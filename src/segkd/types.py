"""The types that pass between the parts.

Shape letters: B images, C channels, K classes, H W height and width (h w at a network's own stride).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = 255
"""The label of an unlabeled pixel. Every dataset maps its void to it."""


class FeatureInfo(NamedTuple):
    """Channels and stride of a network's feature map, known before any image is seen."""

    channels: int
    stride: int


FeatureInfos = Mapping[str, FeatureInfo]


class Batch(NamedTuple):
    """Images with their labels. One sample is a `Batch` without the B axis, so stacked samples are a batch."""

    images: Tensor
    """B 3 H W, RGB, 0..255 (uint8 from the datasets). Every network normalizes for itself."""
    target: Tensor
    """B H W int64: a class, or IGNORE_INDEX."""
    valid: Tensor
    """B H W bool: false where augmentation padded. Distillation counts all other pixels, labeled or not."""
    seeds: Tensor
    """B int64: one number per sample, a function of (seed, epoch, index). All randomness of a step comes from it."""


class NetworkOutput(NamedTuple):
    """The output of a network for a batch."""

    logits: Tensor
    """B K h w: unnormalized class scores, at the network's own resolution."""
    features: dict[str, Tensor]
    """Named feature maps, B C h w."""
    align_corners: bool
    """How this network's family resizes its maps."""

    def logits_at(self, size: tuple[int, int]) -> Tensor:
        """Return the logits at another size, B K H W."""
        return resize(self.logits, size, self.align_corners)


class Step(NamedTuple):
    """Everything that a loss may read."""

    batch: Batch
    student: NetworkOutput
    teacher: NetworkOutput | None
    repeat: int = 0
    """How many updates the current phase has made with this batch before."""
    progress: float = 0.0
    """Fraction of the training's steps that are done, 0..1."""


def resize(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Resize B C h w bilinearly to B C H W; return the same tensor if it has that size."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)
