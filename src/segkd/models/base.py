"""The contract of a network.

A network is built with `num_classes` and a `normalization`, takes RGB images in 0..255, normalises them itself, and answers
with `NetworkOutput`. It declares its *features*, the inner maps that a loss may read, by name. Two names are the same for all:

- `encoder`: the deepest features, before any classifier;
- `kd_logits`: class scores where a student is distilled: at the encoder's stride, or the network's answer where it has no other
  classifier. A teacher's answer is its logits.

`auxiliary`, where a network has it, holds the scores of a side head that only the supervised loss reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.types import FeatureInfo, FeatureInfos, NetworkOutput

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""RGB, 0..255, over ImageNet's pixels: what nearly all pretrained networks were trained with."""


class ForeignCheckpoint(NamedTuple):
    """Whose checkpoint a foreign state dict is, and what has to be true for it to load."""

    author: str
    arguments: dict[str, Any]
    """What the network must be built with."""
    normalization: Normalization
    """What the weights were trained on."""
    state: dict[str, Tensor]
    """The weights under our names."""


class Normalization(nn.Module):
    """From RGB in 0..255 to what a network was trained on: (x - mean) / std, in BGR where its authors read images so.

    `mean` and `std` are in RGB order and in the units of the input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr: bool = False) -> None:
        super().__init__()
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalized = (images.to(self.mean.dtype) - self.mean) / self.std
        return normalized.flip(1) if self.bgr else normalized

    def facts(self) -> dict[str, Any]:
        """What rebuilds it."""
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist(), "bgr": self.bgr}


class SegmentationModel(nn.Module, ABC):
    """A network that labels every pixel.

    Subclasses set `features` and `arguments` in their constructor and implement `forward_normalized`.
    """

    align_corners: bool = True
    """How the family enlarges its maps; the authors of all families here trained with aligned corners."""
    min_size: ClassVar[int] = 32
    """The least height and width that it can be trained on, in pixels."""

    def __init__(
        self, num_classes: int, normalization: Normalization, features: FeatureInfos, **arguments: Any
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalization = normalization
        self.features: dict[str, FeatureInfo] = dict(features)
        self.arguments = arguments
        """What rebuilds it, besides the classes and the normalisation."""

    def forward(self, images: Tensor) -> NetworkOutput:
        """Class scores and features of RGB images, B 3 H W in 0..255."""
        if images.shape[-2] < self.min_size or images.shape[-1] < self.min_size:
            height, width = images.shape[-2:]
            raise UserError(
                f"{type(self).__name__} takes images of {self.min_size}×{self.min_size} pixels and more, not {height}×{width}; "
                "enlarge the images or data.crop_size"
            )
        logits, features = self.forward_normalized(self.normalization(images))
        return NetworkOutput(logits, features, self.align_corners)

    @abstractmethod
    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits B K h w and the declared features of normalised images."""

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:  # noqa: ARG003
        """Whose checkpoint of this family the state dict is, by its keys and shapes; None if nobody's that we know."""
        return None

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict that nobody recognised, under our names."""
        return dict(state)


def count_parameters(network: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(p.numel() for p in network.parameters())


def rename_keys(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """A state dict with each key's longest matching prefix replaced; keys without one stay."""
    ordered = sorted(prefixes.items(), key=lambda pair: -len(pair[0]))

    def named(key: str) -> str:
        return next((new + key[len(old) :] for old, new in ordered if key.startswith(old)), key)

    return {named(key): tensor for key, tensor in state.items()}


def add_num_batches_tracked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict that has BatchNorm's counter beside every running mean.

    PyTorch before 0.4.1 did not save the counter; nothing depends on its value while BatchNorm's momentum is a number.
    """
    counts = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for key in state
        if key.endswith("running_mean")
    }
    return {**counts, **state}
