"""The teacher: a network that predicts and never changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import state_hash
from segkd.types import NetworkOutput


class Frozen:
    """A network in evaluation mode, without gradients.

    It is deliberately no `nn.Module`: its holder does not own its weights, so they enter no checkpoint, optimizer,
    broadcast or average, and no `train()` reaches its running statistics.

    Args:
        network: the teacher.
        bf16: compute in bfloat16 whatever precision surrounds it; its weights stay as they are.
    """

    def __init__(self, network: SegmentationModel, bf16: bool = False) -> None:
        self.network, self.bf16 = network.eval().requires_grad_(False), bf16

    def __call__(self, images: Tensor) -> NetworkOutput:
        """Return logits and features of RGB images, B 3 H W in 0..255."""
        with torch.no_grad(), self.use_precision(images.device):
            output: NetworkOutput = self.network(images)
        return output

    def use_precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context in which the network computes in the precision that it has as a teacher."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def to(self, device: torch.device) -> Frozen:
        """Move the network to a device; return self."""
        self.network.to(device)
        return self

    def state_hash(self) -> str:
        """Return a SHA-256 of all weights and running statistics."""
        return state_hash(self.network)
