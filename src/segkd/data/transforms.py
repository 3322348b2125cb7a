"""Augmentation of a sample as a function of its seed.

albumentations 2.0.8 gives every worker and every epoch the same augmentations, because each copy of a pipeline starts from
the same generator. So the transforms are seeded for each sample. Each transform gets a seed of its own, because a pipeline
gives all its transforms the same random numbers: flip, crop position and brightness would follow from the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import albumentations as A
import cv2
import numpy as np
import torch

from segkd.data.base import Sample
from segkd.data.image_io import Array
from segkd.types import IGNORE_INDEX, Batch

_PADDING = 254  # a label that no dataset has; distinguishes padding from void until `valid` is computed


class ColorJitter(NamedTuple):
    """Ranges of random color changes; 0 disables one."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


class Augmentation:
    """Random scale, crop, flip and color jitter.

    Args:
        crop_size: Height and width of the output.
        scale: Smallest and largest factor of the image size.
        flip: Probability of a horizontal flip.
        jitter: Color changes.
        fill: RGB of padding around small images; it is marked as not valid.
    """

    seeded_transforms: Sequence[A.BasicTransform]
    """The transforms of the pipeline, in the order in which they are seeded."""

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
        transforms: list[A.BasicTransform] = [
            RandomScale(
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
            transforms.append(_make_jitter(jitter))
        self.pipeline = A.Compose(transforms, strict=True)
        self.seeded_transforms = [crop, *(transform for transform in transforms if transform is not crop)]

    def __call__(self, sample: Sample, seed: int) -> Batch:
        """Augment a sample; all randomness follows from `seed`."""
        for number, transform in enumerate(self.seeded_transforms):
            transform.set_random_seed((seed + number) & 0xFFFFFFFF)
        augmented = self.pipeline(image=sample.image, mask=sample.label)
        padded = augmented["mask"] == _PADDING
        label = np.where(padded, np.uint8(IGNORE_INDEX), augmented["mask"])
        return to_batch(augmented["image"], label, seed, ~padded)


class RandomScale(A.RandomScale):  # type: ignore[misc]
    """albumentations' random scale, which fails where a side becomes shorter than one pixel."""

    def apply(self, img: Array, scale: float, **params: Any) -> Array:
        """Scale an image."""
        if min(img.shape[:2]) * scale >= 1:
            return cast("Array", super().apply(img, scale, **params))
        return _scale_tiny(img, scale, self.interpolation)

    def apply_to_mask(self, mask: Array, scale: float, **params: Any) -> Array:
        """Scale a label."""
        if min(mask.shape[:2]) * scale >= 1:
            return cast("Array", super().apply_to_mask(mask, scale, **params))
        return _scale_tiny(mask, scale, self.mask_interpolation)


def _scale_tiny(image: Array, scale: float, interpolation: int) -> Array:
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    return cast("Array", cv2.resize(image, (width, height), interpolation=interpolation))


def _make_jitter(jitter: ColorJitter) -> A.BasicTransform:
    return A.ColorJitter(
        brightness=(1 - jitter.brightness, 1 + jitter.brightness),
        contrast=(1 - jitter.contrast, 1 + jitter.contrast),
        saturation=(1 - jitter.saturation, 1 + jitter.saturation),
        hue=(-jitter.hue, jitter.hue),
        p=1.0,
    )


def to_batch(image: Array, label: Array, seed: int = 0, valid: np.ndarray | None = None) -> Batch:
    """Convert one sample to tensors without the B axis; without `valid`, all pixels are valid."""
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        target=torch.from_numpy(label.astype(np.int64)),
        valid=torch.ones(label.shape, dtype=torch.bool) if valid is None else torch.from_numpy(valid),
        seeds=torch.tensor(seed),
    )


def sample_seed(seed: int, epoch: int, index: int, labeled: bool = True) -> int:
    """Return the seed of one sample in one epoch, 63 bits, from which all its randomness follows."""
    source = () if labeled else (1,)
    low, high = np.random.SeedSequence([seed, epoch, index, *source]).generate_state(2, np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32
