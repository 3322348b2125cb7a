"""From images to class indices: in one piece or in windows, with uncertain pixels left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segkd.data.image_io import Array
from segkd.models.base import SegmentationModel
from segkd.models.inference import BAND_ROWS, Size, slide_window
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.types import IGNORE_INDEX, resize


class Labeling(NamedTuple):
    """How the class of a pixel follows from the outputs of a network."""

    num_classes: int
    """Further outputs, such as void, are ignored."""
    window: Size | None = None
    """Height and width of sliding windows; None: the whole image."""
    overlap: float = 0.0
    """Of neighboring windows, in [0, 1)."""
    min_confidence: float | None = None
    """Smallest probability of the class, among the classes; pixels below are IGNORE_INDEX."""


@torch.inference_mode()
def predict_labels(network: SegmentationModel, images: Tensor, labeling: Labeling) -> list[Array]:
    """Return the class indices, H W, of each of B 3 H W uint8 images.

    Logits at full size exist for one image at a time, and in windows for some rows of it: at 24 megapixels, those of
    19 classes take 1.8 GB.
    """
    images = images.to(next(network.parameters()).device)
    size = (images.shape[-2], images.shape[-1])
    return [_choose_classes(bands, size, labeling) for bands in _generate_bands(network, images, labeling)]


def _generate_bands(network: SegmentationModel, images: Tensor, labeling: Labeling) -> Iterator[Iterable[Tensor]]:
    """Yield the logits of each image in bands of rows, 1 K h W, from the top."""
    if labeling.window is not None:
        for image in images:
            yield slide_window(labeling.window, labeling.overlap, network, image[None])
        return
    size = (images.shape[-2], images.shape[-1])
    logits, _, align_corners = network(enlarge_to_minimum(images, network))
    for one in logits:
        yield torch.split(resize(one[None, : labeling.num_classes], size, align_corners), BAND_ROWS, 2)


def _choose_classes(bands: Iterable[Tensor], size: Size, labeling: Labeling) -> Array:
    labels = np.empty(size, np.uint8)  # at once: pieces that stay would keep the memory between them from being reused
    top = 0
    for band in bands:
        logits = band[0, : labeling.num_classes]
        largest, indices = logits.max(0)
        chosen = indices.byte()
        if labeling.min_confidence is not None:
            confidence = 1 / (logits - largest).exp().sum(0)  # the softmax of the largest
            chosen[~(confidence >= labeling.min_confidence)] = IGNORE_INDEX  # also where it is NaN
        labels[top : top + len(chosen)] = chosen.cpu().numpy()
        top += len(chosen)
    return labels
