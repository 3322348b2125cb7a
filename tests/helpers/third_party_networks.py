"""Networks like those of other libraries, for the tests of the adapter."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class ThirdPartyNetwork(nn.Module):
    """A backbone and a head, whose output has the form that `output` names; it refuses sides that `divisor` does not divide."""

    def __init__(self, outputs: int = 11, output: str = "tensor", width: int = 8, divisor: int = 1) -> None:
        super().__init__()
        self.output, self.divisor = output, divisor
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        )
        self.tokens = nn.Flatten(2)
        self.unused = nn.Identity()
        self.head = nn.Conv2d(2 * width, outputs, 1)
        self.pyramid = Pyramid()

    def forward(self, images: Tensor) -> Any:
        if any(side % self.divisor for side in images.shape[-2:]):
            raise RuntimeError(f"Wrong input shape: {self.divisor} must divide it.\nConsider padding.")
        features = self.backbone(images)
        self.tokens(features)
        self.pyramid(images, features)
        scores = self.head(features)
        full_size = F.interpolate(scores, images.shape[-2:], mode="bilinear")
        outputs: dict[str, Any] = {
            "tensor": full_size,
            "quarter size": scores,
            "dict": {"aux": scores, "out": full_size},
            "tuple": (full_size, scores),
            "list": [full_size, scores],
            "unknown dict": {"prediction": full_size},
            "labels": full_size.argmax(1),
            "none": None,
        }
        return outputs[self.output]


class Pyramid(nn.Module):
    """Maps of several strides, the images first, like encoders of segmentation_models_pytorch."""

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return list(maps)


def build(outputs: int = 11) -> nn.Module:
    """Build a network; the module is none of the libraries whose functions are allowed."""
    return ThirdPartyNetwork(outputs)


class NoNetwork:
    """A class that is no network."""
