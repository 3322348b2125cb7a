"""The interface of segmentation networks.

A network is built with `num_classes` and a `normalization`, takes RGB images in 0..255, normalizes them itself and returns
a `NetworkOutput`. It declares its *features*, the inner maps that a loss may read, by name. Two names mean the same in every
network:

- `encoder`: the deepest features before any classifier;
- `kd_logits`: the logits on which a student is distilled, at the encoder's stride, or the network's output if it has no other
  classifier. Of a teacher, losses read the output logits.

`auxiliary`, where a network has it, holds the logits of a side head that only the supervised loss reads.
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
"""RGB, 0..255, over ImageNet's pixels: nearly all pretrained networks were trained with these."""


class ForeignCheckpoint(NamedTuple):
    """A checkpoint written by a network's original authors, converted to segkd's names."""

    author: str
    arguments: dict[str, Any]
    """Constructor arguments that the weights require."""
    normalization: Normalization
    """The normalization that the weights were trained with."""
    state: dict[str, Tensor]
    """The weights under segkd's names."""


class Normalization(nn.Module):
    """Normalize RGB images in 0..255: (x - mean) / std, then BGR if the weights were trained on BGR.

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
        """Return normalized images, B 3 H W."""
        normalized = (images.to(self.mean.dtype) - self.mean) / self.std
        return normalized.flip(1) if self.bgr else normalized

    def to_dict(self) -> dict[str, Any]:
        """Return the constructor arguments as plain values."""
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist(), "bgr": self.bgr}


class SegmentationModel(nn.Module, ABC):
    """A network that classifies every pixel.

    Subclasses set `features` and `arguments` in their constructor and implement `forward_normalized`.
    """

    align_corners: bool = True
    """How the network upsamples its maps; the authors of all networks here trained with aligned corners."""
    min_size: int = 32
    """The smallest height and width of an image to train on, in pixels."""
    family: ClassVar[tuple[type[SegmentationModel], ...]] = ()
    """Classes whose weights can start this network, besides its own."""
    takes_resnet_weights: ClassVar[bool] = False
    """Whether its `backbone` is a ResNet with torchvision's keys."""
    constructor_loads_weights: ClassVar[bool] = False
    """Whether the constructor may bring trained weights."""
    has_members: ClassVar[bool] = False
    """Whether it combines other networks, each with weights of its own."""
    unpools: ClassVar[bool] = False
    """Whether it unpools to the positions of maxima: where two are nearly equal, rounding decides, and logits jump."""
    can_be_student: ClassVar[bool] = True
    """Whether it can be trained."""

    def __init__(
        self, num_classes: int, normalization: Normalization, features: FeatureInfos, **arguments: Any
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classes: tuple[str, ...] | None = None
        """Names of its classes, in order, where the file of its weights says them; a last output may be void."""
        self.normalization = normalization
        self.features: dict[str, FeatureInfo] = dict(features)
        self.arguments = arguments
        """Constructor arguments besides `num_classes` and `normalization`."""

    def forward(self, images: Tensor) -> NetworkOutput:
        """Return logits and features of RGB images, B 3 H W in 0..255.

        Raises:
            UserError: the images are smaller than `min_size`.
        """
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
        """Return logits, B K h w, and the declared features of normalized images, B 3 H W."""

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:  # noqa: ARG003
        """Return the checkpoint if it was written by the network's original authors, by its keys and shapes, else None."""
        return None

    def find_class_keys(self) -> set[str]:
        """Return the keys of the weights that belong to classes."""
        with torch.random.fork_rng(devices=[]):
            larger = type(self)(num_classes=self.num_classes + 1, normalization=self.normalization, **self.arguments)
        shapes = {key: tensor.shape for key, tensor in larger.state_dict().items()}
        return {key for key, tensor in self.state_dict().items() if shapes.get(key) != tensor.shape}

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict of unknown origin under segkd's names."""
        return dict(state)


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())


def rename_keys(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a state dict with the longest matching prefix of each key replaced; other keys stay."""
    ordered = sorted(prefixes.items(), key=lambda pair: -len(pair[0]))

    def rename(key: str) -> str:
        return next((new + key[len(old) :] for old, new in ordered if key.startswith(old)), key)

    return {rename(key): tensor for key, tensor in state.items()}


def add_num_batches_tracked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with BatchNorm's counter beside every running mean.

    PyTorch before 0.4.1 did not save the counter; nothing depends on its value while BatchNorm's momentum is a number.
    """
    counters = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for key in state
        if key.endswith("running_mean")
    }
    return {**counters, **state}


def add_missing_counters(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with those of BatchNorm's counters that a network has and the state dict lacks."""
    missing = {key: value for key, value in add_num_batches_tracked(dict(state)).items() if key not in state}
    return {**{key: value for key, value in missing.items() if key in network.state_dict()}, **state}
