"""Networks as other libraries make them, for the tests of the adapter."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Foreign(nn.Module):
    """A backbone and a head, answering in the way that is asked for; classes in its own order."""

    def __init__(self, outputs: int = 11, answer: str = "tensor", width: int = 8) -> None:
        super().__init__()
        self.answer = answer
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        )
        self.tokens = nn.Flatten(2)
        self.unused = nn.Identity()
        self.head = nn.Conv2d(2 * width, outputs, 1)

    def forward(self, images: Tensor) -> Any:
        features = self.backbone(images)
        self.tokens(features)
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


def build(outputs: int = 11) -> nn.Module:
    """A function that is of no library that we know."""
    return Foreign(outputs)


class NoNetwork:
    """A class, but of no network."""
