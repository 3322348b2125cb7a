"""Inference modes: from a network and images to logits at the images' own size.

Modes that average probabilities return their logarithms. The softmax of either is a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.types import resize

Inferer = Callable[[SegmentationModel, Tensor], Tensor]
"""Network and images (B 3 H W, 0..255) → logits (B K H W)."""

Size = tuple[int, int]

BAND_ROWS = 32
"""Rows of an image whose logits are reduced to classes at once, where memory must not hold those of the image."""


def infer_whole_image(network: SegmentationModel, images: Tensor) -> Tensor:
    """Return the logits of whole images, resized bilinearly, with aligned corners if the network's family aligns them.

    Images smaller than the network takes are enlarged for it.
    """
    logits: Tensor = network(enlarge_to_minimum(images, network)).logits_at(_get_size(images)).float()
    return logits


def infer_sliding_window(window: Size, overlap: float, network: SegmentationModel, images: Tensor) -> Tensor:
    """Return logits averaged over windows of one size; see `slide_window`."""
    return torch.cat([*slide_window(window, overlap, network, images)], 2)


def slide_window(window: Size, overlap: float, network: SegmentationModel, images: Tensor) -> Iterator[Tensor]:
    """Yield logits averaged over windows of one size in bands of up to `BAND_ROWS` rows, from the top, B K h W.

    The last window of a row or column is shifted inwards. Memory holds the logits of one row of windows, not of the image.

    Args:
        window: height and width; a smaller image is one window.
        overlap: smallest fraction of a window that its neighbor covers too, in [0, 1).
        network: the network.
        images: B 3 H W, 0..255.
    """
    height, width = _get_size(images)
    rows, columns = min(window[0], height), min(window[1], width)
    tops, lefts = _compute_starts(height, rows, overlap), _compute_starts(width, columns, overlap)
    total, counts = images.new_zeros(0), images.new_zeros(1, 1, rows, width, dtype=torch.float32)
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            region = slice(left, left + columns)
            logits = infer_whole_image(network, images[..., top : top + rows, region].contiguous())
            if not total.numel():
                total = logits.new_zeros(*logits.shape[:2], rows, width)
            total[..., region] += logits
            counts[..., region] += 1
        finished = next_top - top
        for start in range(0, finished, BAND_ROWS):
            band = slice(start, min(start + BAND_ROWS, finished))
            yield total[..., band, :] / counts[..., band, :]
        _shift_up(total, finished)
        _shift_up(counts, finished)


def check_window(window: Size | None, network: SegmentationModel) -> None:
    """Check that a network takes images of the size of a window.

    Raises:
        UserError: it does not.
    """
    if window is not None and min(window) < network.min_size:
        raise UserError(
            f"window={list(window)} is less than the {network.min_size} pixels that {type(network).__name__} needs; "
            "give a larger window"
        )


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


def _shift_up(maps: Tensor, count: int) -> None:
    """Move the rows of B C h W up by `count` in place; the last rows become zero."""
    rest = maps.shape[-2] - count
    for start in range(0, rest, count):  # pieces that do not overlap, so that none is copied twice
        size = min(count, rest - start)
        maps[..., start : start + size, :] = maps[..., start + count : start + count + size, :]
    maps[..., rest:, :] = 0


def _get_size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]
