"""The teacher: it answers, and nothing moves it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import state_hash
from segkd.types import NetworkOutput


class Frozen:
    """A network that only answers: evaluation mode, no gradient.

    It is deliberately no `nn.Module`. Whoever holds it does not own its weights, so they enter no checkpoint, optimiser,
    broadcast or average, and no `train()` reaches its running statistics.

    Args:
        network: the teacher.
        bf16: compute in bfloat16 whatever the precision around; its weights stay as they are.
    """

    def __init__(self, network: SegmentationModel, bf16: bool = False) -> None:
        self.network, self.bf16 = network.eval().requires_grad_(False), bf16

    def __call__(self, images: Tensor) -> NetworkOutput:
        with torch.no_grad(), self.precision(images.device):
            answer: NetworkOutput = self.network(images)
        return answer

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Within it the network computes as it does for the student."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def to(self, device: torch.device) -> Frozen:
        """Move it; returns itself."""
        self.network.to(device)
        return self

    def state_hash(self) -> str:
        """A hash of all its weights and statistics."""
        return state_hash(self.network)
