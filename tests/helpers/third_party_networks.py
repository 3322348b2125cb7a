"""Networks as other libraries make them, for the tests of the adapter."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Foreign(nn.Module):
    """A backbone and a head, answering in the way that is asked for; sides that `divisor` does not divide it refuses."""

    def __init__(self, outputs: int = 11, answer: str = "tensor", width: int = 8, divisor: int = 1) -> None:
        super().__init__()
        self.answer, self.divisor = answer, divisor
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
        whole = F.interpolate(scores, images.shape[-2:], mode="bilinear")
        answers: dict[str, Any] = {
            "tensor": whole,
            "half size": scores,
            "dict": {"aux": scores, "out": whole},
            "tuple": (whole, scores),
            "list": [whole, scores],
            "strange dict": {"prediction": whole},
            "labels": whole.argmax(1),
            "nothing": None,
        }
        return answers[self.answer]


class Pyramid(nn.Module):
    """Maps of several strides, the images first, as encoders of segmentation_models_pytorch give them."""

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return list(maps)


def build(outputs: int = 11) -> nn.Module:
    """A function that is of no library that we know."""
    return Foreign(outputs)


class NoNetwork:
    """A class, but of no network."""
