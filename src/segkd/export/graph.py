"""What a file holds of a network: from images to class scores of the images' own size."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import SegmentationModel

_TRACED = (2, 96, 128)
"""Images, height and width that a graph is recorded with; one image, or an odd side, would be taken for a constant."""


class Graph(nn.Module):
    """Images B 3 H W to class scores B K H W, for any B, H and W.

    Args:
        network: what to export; it is copied and stays as it is.
        inside: whether the graph normalises. It then takes RGB images as uint8, and otherwise float32 of
            `network.normalization`.
    """

    def __init__(self, network: SegmentationModel, inside: bool = True) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().requires_grad_(False)
        self.inside = inside
        self.eval()  # an exporter sets what it exports back to the mode that the whole is in
        # Asked here, since a graph keeps no question: a network whose answer is of full size is not enlarged.
        odd = torch.zeros(1, 3, 67, 93)
        self.enlarges = self.network.forward_normalized(odd)[0].shape[-2:] != odd.shape[-2:]

    def forward(self, images: Tensor) -> Tensor:
        logits, _ = self.network.forward_normalized(self.network.normalization(images) if self.inside else images)
        if not self.enlarges:
            return logits
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=self.network.align_corners)

    def example(self, count: int = _TRACED[0], height: int = _TRACED[1], width: int = _TRACED[2]) -> Tensor:
        """Images as the graph takes them, of noise that is the same at every call."""
        noise = torch.Generator().manual_seed(0)
        return self.taken(torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=noise))

    def taken(self, images: Tensor) -> Tensor:
        """RGB images, B 3 H W uint8, as the graph takes them."""
        normalized: Tensor = images if self.inside else self.network.normalization(images)
        return normalized
