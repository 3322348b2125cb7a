"""The computation that an exported file holds: from images to logits of the images' own size."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import SegmentationModel

_EXAMPLE_SHAPE = (2, 96, 128)
"""Images, height and width to record a graph with; one image, or an odd side, would be taken for a constant."""


class Graph(nn.Module):
    """Images B 3 H W to logits B K H W, for any B, H and W.

    Args:
        network: the network to export; it is copied and stays as it is.
        include_normalization: whether the graph normalizes. It then takes RGB images as uint8, and otherwise float32 of
            `network.normalization`.
    """

    def __init__(self, network: SegmentationModel, include_normalization: bool = True) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().requires_grad_(False)
        self.include_normalization = include_normalization
        self.eval()  # an exporter restores the mode of the module that it is given, so the whole must be in evaluation mode
        # Decided here, since a recorded graph has no branches: logits of full size are not upsampled.
        probe = torch.zeros(1, 3, 67, 93)
        self.upsamples = self.network.forward_normalized(probe)[0].shape[-2:] != probe.shape[-2:]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, B K H W."""
        normalized = self.network.normalization(images) if self.include_normalization else images
        logits, _ = self.network.forward_normalized(normalized)
        if not self.upsamples:
            return logits
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=self.network.align_corners)

    def make_example(
        self, count: int = _EXAMPLE_SHAPE[0], height: int = _EXAMPLE_SHAPE[1], width: int = _EXAMPLE_SHAPE[2]
    ) -> Tensor:
        """Return input of the graph, made of noise that is the same at every call."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
        return self.prepare_input(noise)

    def prepare_input(self, images: Tensor) -> Tensor:
        """Convert RGB images, B 3 H W uint8, to input of the graph."""
        prepared: Tensor = images if self.include_normalization else self.network.normalization(images)
        return prepared
