"""Augmentation behind our own small interface: what happens to a sample is a function of its key and of nothing else.

albumentations 2.0.8 gives every worker and every epoch the same augmentations, since each copy of a pipeline
starts from the same generator. So it is seeded anew for each sample; and each of its steps by itself, since a pipeline gives
all steps the same numbers: a flip, a crop's place and a brightness would follow from the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import albumentations as A
import cv2
import numpy as np
import torch

from segkd.data.base import Sample
from segkd.data.image_io import Array
from segkd.types import IGNORE_INDEX, Batch

_PADDING = 254  # a label that no data set has; told apart from void until `valid` is known


class ColorJitter(NamedTuple):
    """Ranges of random colour changes; 0 switches one off."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


class Augmentation:
    """Random scale, crop, flip and colour jitter.

    Args:
        crop_size: height and width of what comes out.
        scale: least and greatest factor of the image's size.
        flip: probability of a horizontal flip.
        jitter: colour changes.
        fill: RGB of pixels outside of a small image; they are marked as not valid.
    """

    drawn: Sequence[A.BasicTransform]
    """The steps of the pipeline, in the order in which they are seeded."""

    def __init__(
        self,
        crop_size: tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        jitter: ColorJitter | None = None,
        fill: Sequence[float] = (0, 0, 0),
    ) -> None:
        height, width = crop_size
        crop = A.RandomCrop(height, width, p=1.0)
        steps: list[A.BasicTransform] = [
            A.RandomScale(
                scale_limit=(scale[0] - 1, scale[1] - 1),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                p=1.0,
            ),
            A.PadIfNeeded(
                height,
                width,
                position="random",
                border_mode=cv2.BORDER_CONSTANT,
                fill=[float(round(c)) for c in fill],
                fill_mask=_PADDING,
                p=1.0,
            ),
            crop,
            A.HorizontalFlip(p=flip),
        ]
        if jitter is not None and any(jitter):
            steps.append(
                A.ColorJitter(
                    brightness=(1 - jitter.brightness, 1 + jitter.brightness),
                    contrast=(1 - jitter.contrast, 1 + jitter.contrast),
                    saturation=(1 - jitter.saturation, 1 + jitter.saturation),
                    hue=(-jitter.hue, jitter.hue),
                    p=1.0,
                )
            )
        self.pipeline = A.Compose(steps, strict=True)
        self.drawn = [crop, *(step for step in steps if step is not crop)]

    def __call__(self, sample: Sample, key: int) -> Batch:
        """The augmented sample, drawn by `key`."""
        for number, step in enumerate(self.drawn):
            step.set_random_seed((key + number) & 0xFFFFFFFF)
        changed = self.pipeline(image=sample.image, mask=sample.label)
        padded = changed["mask"] == _PADDING
        label = np.where(padded, np.uint8(IGNORE_INDEX), changed["mask"])
        return to_batch(changed["image"], label, key, ~padded)


def to_batch(image: Array, label: Array, key: int = 0, valid: np.ndarray | None = None) -> Batch:
    """One sample as tensors, without the B axis; all pixels valid unless said otherwise."""
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        target=torch.from_numpy(label.astype(np.int64)),
        valid=torch.ones(label.shape, dtype=torch.bool) if valid is None else torch.from_numpy(valid),
        seeds=torch.tensor(key),
    )


def sample_seed(seed: int, epoch: int, index: int, labelled: bool = True) -> int:
    """The key of one drawn sample, 63 bits: all that is random about it follows from it."""
    source = () if labelled else (1,)
    low, high = np.random.SeedSequence([seed, epoch, index, *source]).generate_state(2, np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32
