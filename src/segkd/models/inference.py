"""Inference modes: from a network and images to logits at the images' own size.

Modes that average probabilities return their logarithms. The softmax of either is a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.models.base import SegmentationModel
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.types import resize

Inferer = Callable[[SegmentationModel, Tensor], Tensor]
"""Network and images (B 3 H W, 0..255) → logits (B K H W)."""

Size = tuple[int, int]


def infer_whole_image(network: SegmentationModel, images: Tensor) -> Tensor:
    """Return the logits of whole images, resized bilinearly, with aligned corners if the network's family aligns them.

    Images smaller than the network takes are enlarged for it.
    """
    logits: Tensor = network(enlarge_to_minimum(images, network)).logits_at(_get_size(images)).float()
    return logits


def infer_sliding_window(window: Size, overlap: float, network: SegmentationModel, images: Tensor) -> Tensor:
    """Return logits averaged over windows of one size; the last window of a row or column is shifted inwards.

    Args:
        window: height and width; a smaller image is one window.
        overlap: smallest fraction of a window that its neighbor covers too, in [0, 1).
        network: the network.
        images: B 3 H W, 0..255.
    """
    height, width = _get_size(images)
    window = min(window[0], height), min(window[1], width)
    total, counts = images.new_zeros(0), images.new_zeros(1, 1, height, width, dtype=torch.float32)
    for top in _compute_starts(height, window[0], overlap):
        for left in _compute_starts(width, window[1], overlap):
            region = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            logits = infer_whole_image(network, images[region])
            if not total.numel():
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[region] += logits
            counts[region] += 1
    return total / counts


def infer_multi_scale_flip(
    inferer: Inferer, scales: Sequence[float], flip: bool, network: SegmentationModel, images: Tensor
) -> Tensor:
    """Return the log of the mean probability over several scales, and over mirrored images if `flip`."""
    size, pixels = _get_size(images), images.float()
    probabilities = []
    for scale in scales:
        scaled = resize(pixels, (round(size[0] * scale), round(size[1] * scale)), align_corners=False)
        outputs = [inferer(network, scaled)]
        if flip:
            outputs.append(inferer(network, scaled.flip(-1)).flip(-1))
        probabilities += [resize(logits, size, network.align_corners).softmax(1) for logits in outputs]
    return torch.stack(probabilities).mean(0).clamp(min=torch.finfo(torch.float32).tiny).log()


def infer_half_resolution(network: SegmentationModel, images: Tensor) -> Tensor:
    """Return the logits of half-size images, upsampled by nearest neighbor (Mehta et al., 2018, on Cityscapes)."""
    size = _get_size(images)
    shrunk = resize(images.float(), (size[0] // 2, size[1] // 2), align_corners=False)
    return F.interpolate(infer_whole_image(network, shrunk), size=size, mode="nearest")


def make_inferer(window: Size | None, overlap: float, scales: Sequence[float], flip: bool) -> Inferer:
    """Combine window, scales and flip; return `infer_whole_image` itself if none of them changes anything."""
    single: Inferer = infer_whole_image if window is None else partial(infer_sliding_window, window, overlap)
    return single if list(scales) == [1] and not flip else partial(infer_multi_scale_flip, single, scales, flip)


def _compute_starts(length: int, window: int, overlap: float) -> list[int]:
    step = max(1, int(window * (1 - overlap)))
    return sorted({min(start, length - window) for start in range(0, length - window + step, step)})


def _get_size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]
