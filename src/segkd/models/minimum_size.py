"""Images smaller than a network takes."""

from __future__ import annotations

from torch import Tensor

from segkd.models.base import SegmentationModel
from segkd.types import resize


def enlarge_to_minimum(images: Tensor, network: SegmentationModel) -> Tensor:
    """Return images, B 3 H W, of which each side is at least the network's `min_size`, resized bilinearly where it was less.

    Resize the logits to the size of the original images: then labels and scores count their pixels.
    """
    height, width = images.shape[-2:]
    if min(height, width) >= network.min_size:
        return images
    size = max(height, network.min_size), max(width, network.min_size)
    return resize(images.float(), size, align_corners=False)
