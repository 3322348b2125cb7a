"""The training split in device memory, augmented there a batch at a time: no loading processes and no copies per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.data.samplers import DistributedShuffleSampler
from segkd.data.transforms import ColorJitter, sample_seed
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch

_GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in albumentations


class AugmentationParams(NamedTuple):
    """Parameters of the augmentation of B images."""

    scale: Tensor
    """B 2 float: height and width of the resized image relative to the original."""
    offset: Tensor
    """B 2 float: whole pixels of the resized image above and left of the crop; negative for padding."""
    flip: Tensor
    """B bool."""
    color: Tensor
    """B 3 float: factors of brightness, contrast and saturation."""


class DeviceAugmentation:
    """Random scale, crop, flip and color jitter of a whole batch, with the same distribution as `Augmentation`.

    It uses other random numbers than `Augmentation`, and changes brightness, contrast and saturation in this order. It does not
    change hue.

    Args:
        crop_size: Height and width of the output.
        scale: Smallest and largest factor of the image size.
        flip: Probability of a horizontal flip.
        jitter: Color changes.
        fill: RGB of padding around small images; it is marked as not valid.

    Raises:
        UserError: The jitter changes hue.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        jitter: ColorJitter | None = None,
        fill: Sequence[float] = (0, 0, 0),
    ) -> None:
        self.crop_size, self.scale, self.flip, self.jitter = crop_size, scale, flip, jitter or ColorJitter()
        self.fill = [float(round(c)) for c in fill]
        if self.jitter.hue:
            raise UserError("data.on_device=true does not change hues; give data.jitter.hue=0, or data.on_device=false")

    def sample_params(self, seeds: Sequence[int], size: tuple[int, int]) -> AugmentationParams:
        """Sample the parameters of images of `size` H W, one seed per image, on the CPU."""
        samples = [self._sample_one(np.random.default_rng(seed), size) for seed in seeds]
        return AugmentationParams(*(torch.tensor(np.array(values)) for values in zip(*samples, strict=True)))

    def _sample_one(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Any, ...]:
        factor = rng.uniform(*self.scale)
        resized = [max(1, int(side * factor)) for side in size]
        margins = [side - crop for side, crop in zip(resized, self.crop_size, strict=True)]
        offset = [int(rng.integers(0, abs(margin) + 1)) * (1 if margin >= 0 else -1) for margin in margins]
        flip = bool(rng.random() < self.flip)
        ranges = (self.jitter.brightness, self.jitter.contrast, self.jitter.saturation)
        color = [rng.uniform(1 - reach, 1 + reach) for reach in ranges]
        scale = [new / old for new, old in zip(resized, size, strict=True)]
        return scale, [float(o) for o in offset], flip, color

    def __call__(self, images: Tensor, labels: Tensor, params: AugmentationParams) -> tuple[Tensor, Tensor, Tensor]:
        """Augment images B 3 h w uint8 and labels B h w uint8.

        Returns:
            Images B 3 H W uint8, target B H W int64, valid B H W bool.
        """
        size = images.shape[-2:]
        rows, row_is_valid = self._locate_crop(params, 0, size)
        columns, column_is_valid = self._locate_crop(params, 1, size)
        valid = row_is_valid[:, :, None] & column_is_valid[:, None, :]
        grid = torch.stack((columns[:, None, :].expand(valid.shape), rows[:, :, None].expand(valid.shape)), -1)
        # Borders are repeated, since a resized image has no outside to mix in; the area beyond them is filled below.
        crops = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        fill = torch.tensor(self.fill, device=images.device).view(1, 3, 1, 1)
        crops = self._jitter_colors(torch.where(valid[:, None], crops, fill), params.color.float())
        classes = F.grid_sample(labels[:, None].float(), grid, "nearest", padding_mode="border", align_corners=False)
        target = classes[:, 0].long().masked_fill(~valid, IGNORE_INDEX)
        return crops.round().clamp(0, 255).byte(), target, valid

    def _locate_crop(self, params: AugmentationParams, side: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the positions of the crop's rows (side 0) or columns (side 1) in the image, B H in -1..1, and their validity."""
        resized = params.scale[:, side, None] * size[side]
        crop = torch.arange(self.crop_size[side], device=resized.device, dtype=resized.dtype)
        position = crop + params.offset[:, side, None]
        if side == 1:
            position = torch.where(params.flip[:, None], position.flip(1), position)
        # float64 up to here: half a pixel decides which label is the nearest.
        return (2 * (position + 0.5) / resized - 1).float(), (position >= 0) & (position < resized.round())

    def _jitter_colors(self, images: Tensor, factors: Tensor) -> Tensor:
        if not any(self.jitter):
            return images
        brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors.unbind(1))
        images = (images * brightness).clamp(0, 255)
        mean = _to_gray(images).mean((2, 3), keepdim=True)
        images = (mean + contrast * (images - mean)).clamp(0, 255)
        gray = _to_gray(images)
        return gray + saturation * (images - gray)


def _to_gray(images: Tensor) -> Tensor:
    """Convert B 3 H W to B 1 H W."""
    weights = torch.tensor(_GRAY, device=images.device, dtype=images.dtype)
    return torch.einsum("bchw,c->bhw", images, weights)[:, None]


class DeviceLoader:
    """Batches of a training split in device memory, in place of a DataLoader.

    As with `Augmentation`, order and randomness follow from (seed, epoch, image).

    Args:
        source: The split; its images have one size.
        augmentation: Augmentation of its images.
        sampler: This process's share, in order.
        batch_size: Images per batch of this process.
        seed: Seed of the augmentation.
        device: Device of the images.

    Raises:
        UserError: The images differ in size.
    """

    def __init__(
        self,
        source: SegmentationDataset,
        augmentation: DeviceAugmentation,
        sampler: DistributedShuffleSampler,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.augmentation, self.sampler, self.batch_size, self.seed = augmentation, sampler, batch_size, seed
        samples = [source[i] for i in range(len(source))]
        if len(sizes := {sample.label.shape for sample in samples}) > 1:
            raise UserError(
                f"data.on_device=true takes images of one size, and {source.display_name} {source.split} has {len(sizes)}; "
                "give data.on_device=false"
            )
        images = np.stack([sample.image.transpose(2, 0, 1) for sample in samples])
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(np.stack([sample.label for sample in samples])).to(device)

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        indices = list(self.sampler)
        if not indices:
            return
        seeds = [sample_seed(self.seed, index.epoch, index.image) for index in indices]
        params = self.augmentation.sample_params(seeds, (self.images.shape[-2], self.images.shape[-1]))
        # A whole epoch at once: a copy to a GPU within a step would wait for the steps before.
        device = self.images.device
        epoch = [torch.tensor([index.image for index in indices]), torch.tensor(seeds), *params]
        batches = zip(*(torch.split(values.to(device), self.batch_size) for values in epoch), strict=True)
        for image, seed, *batch_params in batches:
            augmented = self.augmentation(self.images[image], self.labels[image], AugmentationParams(*batch_params))
            yield Batch(*augmented, seed)
