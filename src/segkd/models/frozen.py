"""The teacher: it answers, and nothing moves it."""

from __future__ import annotations

import torch
from torch import Tensor

from segkd.models.base import SegmentationModel
from segkd.models.weights import fingerprint
from segkd.types import Outputs


class Frozen:
    """A network that only answers: evaluation mode, no gradient.

    It is deliberately no `nn.Module`. Whoever holds it does not own its weights, so they enter no checkpoint, optimiser,
    broadcast or average, and no `train()` reaches its running statistics.
    """

    def __init__(self, network: SegmentationModel) -> None:
        self.network = network.eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> Outputs:
        with torch.no_grad():
            answer: Outputs = self.network(images)
        return answer

    def to(self, device: torch.device) -> Frozen:
        """Move it; returns itself."""
        self.network.to(device)
        return self

    def fingerprint(self) -> str:
        """A hash of all its weights and statistics."""
        return fingerprint(self.network)
