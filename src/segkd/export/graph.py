"""The computation that an exported file holds: from images to logits of the images' own size."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.export.pooling import replace_adaptive_pooling
from segkd.models.base import SegmentationModel

Size = tuple[int, int]
"""Height and width."""

_EXAMPLE_COUNT, _EXAMPLE_SIZE = 2, (96, 128)
"""Images to record a graph with, and their size; one image, or an odd side, would be taken for a constant."""
_ODD_SIZE = (67, 93)
_CHECKED_SHAPES = ((1, (96, 128)), (2, (101, 75)), (1, (64, 187)))


class Graph(nn.Module):
    """Images B 3 H W to logits B K H W, for any B, and any H and W unless a size is given.

    Args:
        network: the network to export; it is copied and stays as it is.
        include_normalization: whether the graph normalizes. It then takes RGB images as uint8, and otherwise float32 of
            `network.normalization`.
        size: the only height and width that it takes; None for any.

    Raises:
        UserError: the network does not take images of this size.
    """

    def __init__(
        self, network: SegmentationModel, include_normalization: bool = True, size: Size | None = None
    ) -> None:
        super().__init__()
        if size is not None and min(size) < network.min_size:
            raise UserError(
                f"size=[{size[0]},{size[1]}] is too small for {type(network).__name__}, whose images have "
                f"{network.min_size} pixels a side and more; give a larger size"
            )
        self.network = copy.deepcopy(network).cpu().requires_grad_(False)
        replace_adaptive_pooling(self.network)
        self.include_normalization = include_normalization
        self.size = size
        self.eval()  # an exporter restores the mode of the module that it is given, so the whole must be in evaluation mode
        # Decided here, since a recorded graph has no branches: logits of full size are not upsampled.
        probe = torch.zeros(1, 3, *(size or _ODD_SIZE))
        self.upsamples = self.network.forward_normalized(probe)[0].shape[-2:] != probe.shape[-2:]

    @property
    def checked_shapes(self) -> tuple[tuple[int, Size], ...]:
        """Numbers of images, and their sizes, at which a file is compared with its network."""
        return _CHECKED_SHAPES if self.size is None else ((1, self.size), (2, self.size))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, B K H W."""
        normalized = self.network.normalization(images) if self.include_normalization else images
        logits, _ = self.network.forward_normalized(normalized)
        if not self.upsamples:
            return logits
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=self.network.align_corners)

    def make_example(self, count: int = _EXAMPLE_COUNT, size: Size | None = None, seed: int = 0) -> Tensor:
        """Return input of the graph, made of noise that is the same at every call with a seed."""
        height, width = size or self.size or _EXAMPLE_SIZE
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
        return self.prepare_input(noise)

    def prepare_input(self, images: Tensor) -> Tensor:
        """Convert RGB images, B 3 H W uint8, to input of the graph."""
        prepared: Tensor = images if self.include_normalization else self.network.normalization(images)
        return prepared
