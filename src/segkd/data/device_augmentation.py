"""The training split as bytes on the device, augmented there, a batch at a time: no loader, no workers, no copies."""

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

_GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as albumentations has it


class AugmentationParams(NamedTuple):
    """What happens to each image of a batch; each B."""

    scale: Tensor
    """B 2 float: height and width of the enlarged image over the image's own."""
    offset: Tensor
    """B 2 float: whole pixels of the enlarged image above and left of the crop; negative where it is smaller."""
    flip: Tensor
    """B bool."""
    color: Tensor
    """B 3 float: factors of brightness, contrast and saturation."""


class DeviceAugmentation:
    """Random scale, crop, flip and colour jitter of a whole batch, by the same law as `Augmentation`.

    It draws other numbers than `Augmentation`, and changes brightness, contrast and saturation in this order; hue it leaves.

    Args:
        crop_size: height and width of what comes out.
        scale: least and greatest factor of the image's size.
        flip: probability of a horizontal flip.
        jitter: colour changes.
        fill: RGB of pixels outside of a small image; they are marked as not valid.
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

    def draw(self, keys: Sequence[int], size: tuple[int, int]) -> AugmentationParams:
        """What the keys of samples say, of images H W; on the CPU."""
        drawn = [self._draw(np.random.default_rng(key), size) for key in keys]
        scale, offset, flip, color = zip(*drawn, strict=True)
        return AugmentationParams(*(torch.tensor(np.array(each)) for each in (scale, offset, flip, color)))

    def _draw(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Any, ...]:
        factor = rng.uniform(*self.scale)
        enlarged = [max(1, int(side * factor)) for side in size]
        spare = [there - wanted for there, wanted in zip(enlarged, self.crop_size, strict=True)]
        offset = [int(rng.integers(0, abs(room) + 1)) * (1 if room >= 0 else -1) for room in spare]
        flip = bool(rng.random() < self.flip)
        ranges = (self.jitter.brightness, self.jitter.contrast, self.jitter.saturation)
        color = [rng.uniform(1 - reach, 1 + reach) for reach in ranges]
        scale = [there / side for there, side in zip(enlarged, size, strict=True)]
        return scale, [float(o) for o in offset], flip, color

    def __call__(self, images: Tensor, labels: Tensor, drawn: AugmentationParams) -> tuple[Tensor, Tensor, Tensor]:
        """Images B 3 h w uint8 and labels B h w uint8 as crops: images B 3 H W uint8, target B H W int64, valid B H W."""
        (rows, rows_there), (columns, columns_there) = (self._places(drawn, side, images.shape[-2:]) for side in (0, 1))
        valid = rows_there[:, :, None] & columns_there[:, None, :]
        grid = torch.stack((columns[:, None, :].expand(valid.shape), rows[:, :, None].expand(valid.shape)), -1)
        # Borders are repeated, as a resized image has no outside; what lies beyond it is filled below.
        seen = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        fill = torch.tensor(self.fill, device=images.device).view(1, 3, 1, 1)
        seen = self._colors(torch.where(valid[:, None], seen, fill), drawn.color.float())
        known = F.grid_sample(labels[:, None].float(), grid, "nearest", padding_mode="border", align_corners=False)
        target = known[:, 0].long().masked_fill(~valid, IGNORE_INDEX)
        return seen.round().clamp(0, 255).byte(), target, valid

    def _places(self, drawn: AugmentationParams, side: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where each row (side 0) or column (1) of the crop lies in the image, B H in -1..1; and whether it does."""
        there = drawn.scale[:, side, None] * size[side]
        crop = torch.arange(self.crop_size[side], device=there.device, dtype=there.dtype)
        place = crop + drawn.offset[:, side, None]
        if side == 1:
            place = torch.where(drawn.flip[:, None], place.flip(1), place)
        # In float64 until here: a half of a pixel decides which label is the nearest.
        return (2 * (place + 0.5) / there - 1).float(), (place >= 0) & (place < there.round())

    def _colors(self, images: Tensor, factors: Tensor) -> Tensor:
        if not any(self.jitter):
            return images
        brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors.unbind(1))
        images = (images * brightness).clamp(0, 255)
        mean = _gray(images).mean((2, 3), keepdim=True)
        images = (mean + contrast * (images - mean)).clamp(0, 255)
        gray = _gray(images)
        return gray + saturation * (images - gray)


def _gray(images: Tensor) -> Tensor:
    """B 1 H W of B 3 H W."""
    weights = torch.tensor(_GRAY, device=images.device, dtype=images.dtype)
    return torch.einsum("bchw,c->bhw", images, weights)[:, None]


class DeviceLoader:
    """Batches of a training split that lies on the device: what a DataLoader is to Lightning.

    The order and all that is random follow from (seed, epoch, image), as everywhere.

    Args:
        source: the split; its images are of one size.
        augmentation: what is done to them.
        sampler: this process's share, in order.
        batch_size: images of a batch of this process.
        seed: of the augmentation.
        device: where all of it lies.

    Raises:
        UserError: images of several sizes.
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
                f"data.on_device=true takes images of one size, and {source.display_name()} {source.split} has {len(sizes)}; "
                "give data.on_device=false"
            )
        images = np.stack([sample.image.transpose(2, 0, 1) for sample in samples])
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(np.stack([sample.label for sample in samples])).to(device)

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        draws = list(self.sampler)
        if not draws:
            return
        keys = [sample_seed(self.seed, draw.epoch, draw.image) for draw in draws]
        drawn = self.augmentation.draw(keys, (self.images.shape[-2], self.images.shape[-1]))
        # All of an epoch at once: a copy to a GPU within a step would wait for the steps before.
        device = self.images.device
        epoch = [torch.tensor([draw.image for draw in draws]), torch.tensor(keys), *drawn]
        for image, key, *how in zip(*(torch.split(each.to(device), self.batch_size) for each in epoch), strict=True):
            yield Batch(*self.augmentation(self.images[image], self.labels[image], AugmentationParams(*how)), key)
