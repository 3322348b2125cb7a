"""Ways to look at an image: from a network and images to class scores at the images' own size.

What a view gives is logits, or, where it averages probabilities, their logarithms: the softmax of either is a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.models.base import SegmentationModel
from segkd.types import resize

Inferer = Callable[[SegmentationModel, Tensor], Tensor]
"""Network and images, B 3 H W in 0..255 → B K H W."""

Size = tuple[int, int]


def whole_image(network: SegmentationModel, images: Tensor) -> Tensor:
    """The image as it is; logits are enlarged bilinearly, with aligned corners where the network's family does so."""
    logits: Tensor = network(images).logits_at(_size(images)).float()
    return logits


def sliding_window(window: Size, overlap: float, network: SegmentationModel, images: Tensor) -> Tensor:
    """Windows of one size, the last of a row or column shifted inwards; logits are averaged where windows overlap.

    Args:
        window: height and width; an image that is smaller is one window.
        overlap: the least share of a window that its neighbour sees too, 0 to less than 1.
    """
    height, width = _size(images)
    window = min(window[0], height), min(window[1], width)
    total, seen = images.new_zeros(0), images.new_zeros(1, 1, height, width, dtype=torch.float32)
    for top in _starts(height, window[0], overlap):
        for left in _starts(width, window[1], overlap):
            where = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            logits = whole_image(network, images[where])
            if not total.numel():
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[where] += logits
            seen[where] += 1
    return total / seen


def multi_scale_flip(
    view: Inferer, scales: Sequence[float], flip: bool, network: SegmentationModel, images: Tensor
) -> Tensor:
    """The mean of the probabilities that a view gives at several scales, and mirrored too if wanted."""
    size, pixels = _size(images), images.float()
    probabilities = []
    for scale in scales:
        scaled = resize(pixels, (round(size[0] * scale), round(size[1] * scale)), align_corners=False)
        said = [view(network, scaled)]
        if flip:
            said.append(view(network, scaled.flip(-1)).flip(-1))
        probabilities += [resize(logits, size, network.align_corners).softmax(1) for logits in said]
    return torch.stack(probabilities).mean(0).clamp(min=torch.finfo(torch.float32).tiny).log()


def half_resolution(network: SegmentationModel, images: Tensor) -> Tensor:
    """Mehta et al.'s way on Cityscapes: the image at half its size, whose classes are doubled by nearest neighbour."""
    size = _size(images)
    shrunk = resize(images.float(), (size[0] // 2, size[1] // 2), align_corners=False)
    return F.interpolate(whole_image(network, shrunk), size=size, mode="nearest")


def make_inferer(window: Size | None, overlap: float, scales: Sequence[float], flip: bool) -> Inferer:
    """The view that these choices make; `whole_image` where they change nothing."""
    single: Inferer = whole_image if window is None else partial(sliding_window, window, overlap)
    return single if list(scales) == [1] and not flip else partial(multi_scale_flip, single, scales, flip)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    step = max(1, int(window * (1 - overlap)))
    return sorted({min(start, length - window) for start in range(0, length - window + step, step)})


def _size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]
