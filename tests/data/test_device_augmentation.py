"""Augmentation on the device: the distribution of albumentations, and samples that do not depend on their batch."""

from __future__ import annotations

from pathlib import Path

import albumentations.augmentations.pixel.functional as reference
import cv2
import numpy as np
import pytest
import torch

from segkd.data.base import Sample, SegmentationDataset
from segkd.data.device_augmentation import AugmentationParams, DeviceAugmentation, DeviceLoader
from segkd.data.samplers import DistributedShuffleSampler
from segkd.data.streets import Streets
from segkd.data.transforms import Augmentation, ColorJitter, sample_seed
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch
from tests.helpers.commands import Command

HEIGHT, WIDTH = 60, 80


def make_sample(seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 10, 3), np.uint8)
    label = cv2.resize(rng.integers(0, 11, (12, 16), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return Sample(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), label)


def make_params(
    scale: tuple[float, float] = (1, 1),
    offset: tuple[int, int] = (0, 0),
    flip: bool = False,
    color: tuple[float, ...] = (1, 1, 1),
) -> AugmentationParams:
    scales, offsets, colors = (torch.tensor([values], dtype=torch.float64) for values in (scale, offset, color))
    return AugmentationParams(scales, offsets, torch.tensor([flip]), colors)


def augment(
    sample: Sample, params: AugmentationParams, crop: tuple[int, int], jitter: ColorJitter | None = None
) -> tuple[np.ndarray, ...]:
    """Return image, label and validity of one augmented sample."""
    images = torch.from_numpy(sample.image.transpose(2, 0, 1).copy())[None]
    augmentation = DeviceAugmentation(crop, jitter=jitter, fill=(10, 20, 30))
    image, label, valid = (values[0] for values in augmentation(images, torch.from_numpy(sample.label)[None], params))
    return image.permute(1, 2, 0).numpy(), label.numpy(), valid.numpy()


@pytest.mark.parametrize("resized", [(31, 41), (47, 61), (60, 80), (77, 103), (120, 160)])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_resize_and_crop_of_opencv(resized: tuple[int, int], flip: bool) -> None:
    one, crop = make_sample(), (28, 36)
    top, left = (resized[0] - crop[0]) // 3, (resized[1] - crop[1]) // 2
    image, label, valid = augment(one, make_params((resized[0] / HEIGHT, resized[1] / WIDTH), (top, left), flip), crop)
    size = (resized[1], resized[0])
    expected = cv2.resize(one.image, size, interpolation=cv2.INTER_LINEAR)[top : top + crop[0], left : left + crop[1]]
    rows, columns = (
        np.floor((np.arange(first, first + length) + 0.5) * side / new_side).astype(int)  # nearest by pixel centers
        for first, length, side, new_side in zip((top, left), crop, (HEIGHT, WIDTH), resized, strict=True)
    )
    classes = one.label[rows][:, columns]
    if flip:
        expected, classes = expected[:, ::-1], classes[:, ::-1]
    assert np.abs(image.astype(int) - expected).max() <= 1  # OpenCV's weights have 11 bits
    assert valid.all()
    assert (label == classes).all()


def test_identity_params_change_nothing() -> None:
    one = make_sample()
    image, label, valid = augment(one, make_params(), (HEIGHT, WIDTH))
    assert (image == one.image).all()
    assert (label == one.label).all()
    assert valid.all()
    mirrored, label, _ = augment(one, make_params(flip=True), (HEIGHT, WIDTH))
    assert (mirrored == one.image[:, ::-1]).all()
    assert (label == one.label[:, ::-1]).all()


def test_padding_is_filled_and_not_valid() -> None:
    one = make_sample()
    image, label, valid = augment(one, make_params((0.5, 0.5), (-4, -7)), (40, 60))
    inside = np.s_[4:34, 7:47]
    assert valid[inside].all()
    assert valid.sum() == 30 * 40
    assert (image[~valid] == (10, 20, 30)).all()
    assert (label[~valid] == IGNORE_INDEX).all()
    expected = cv2.resize(one.image, (40, 30), interpolation=cv2.INTER_LINEAR)
    assert np.abs(image[inside].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("index", range(3))
def test_color_changes_equal_those_of_albumentations(index: int) -> None:
    one, factor = make_sample(), 1.4
    name = ("brightness", "contrast", "saturation")[index]
    color = tuple(factor if i == index else 1.0 for i in range(3))
    image, _, _ = augment(one, make_params(color=color), (HEIGHT, WIDTH), jitter=ColorJitter(**{name: 0.5}))
    expected = getattr(reference, f"adjust_{name}_torchvision")(one.image, factor)
    assert np.abs(image.astype(int) - expected).max() <= 2  # albumentations rounds gray values and their mean
    assert np.abs(image.astype(int) - one.image).max() > 20


def load_batches(
    source: SegmentationDataset, batch_size: int, start: tuple[int, int] = (0, 0), epoch: int = 0
) -> list[Batch]:
    sampler = DistributedShuffleSampler(len(source), batch_size, seed=3, start=start)
    sampler.set_epoch(epoch)
    augmentation = DeviceAugmentation((96, 128), jitter=ColorJitter(0.4, 0.4, 0.4))
    loader = DeviceLoader(source, augmentation, sampler, batch_size, 3, torch.device("cpu"))
    assert len(loader) == len(source) // batch_size
    return list(loader)


def test_samples_do_not_depend_on_batch_size_or_resuming() -> None:
    source = Streets("train", 12)
    by_two, by_four = load_batches(source, 2), load_batches(source, 4)
    for one, other in zip(
        (torch.cat(values) for values in zip(*by_two, strict=True)),
        (torch.cat(values) for values in zip(*by_four, strict=True)),
        strict=True,
    ):
        assert torch.equal(one, other)
    later = load_batches(source, 2, epoch=1)
    assert not torch.equal(later[0].images, by_two[0].images)
    resumed = load_batches(source, 2, start=(1, 4), epoch=1)
    assert len(resumed) == 2
    assert all(
        torch.equal(a, b)
        for one, other in zip(resumed, later[4:], strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_distribution_equals_that_of_the_cpu_augmentation() -> None:
    """The share of padding, and the brightness of valid pixels, over 400 samples of each."""
    one, crop = make_sample(), (50, 70)
    seeds = [sample_seed(0, 0, i) for i in range(400)]
    cpu_augmentation = Augmentation(crop, (0.5, 2.0), 0.5, ColorJitter(brightness=0.4))
    cpu_batches = [cpu_augmentation(one, seed) for seed in seeds]
    augmentation = DeviceAugmentation(crop, (0.5, 2.0), 0.5, ColorJitter(brightness=0.4))
    images = torch.from_numpy(one.image.transpose(2, 0, 1).copy())[None].expand(len(seeds), -1, -1, -1)
    labels = torch.from_numpy(one.label)[None].expand(len(seeds), -1, -1)
    crops, _, valid = augmentation(images, labels, augmentation.sample_params(seeds, (HEIGHT, WIDTH)))
    padded = torch.stack([1 - batch.valid.float().mean() for batch in cpu_batches])
    assert abs((1 - valid.float().mean((1, 2))).mean() - padded.mean()) < 4 * padded.std() / len(seeds) ** 0.5
    expected = torch.stack([batch.images[:, batch.valid].float().mean() for batch in cpu_batches])
    brightness = torch.stack([crop[:, mask].float().mean() for crop, mask in zip(crops, valid, strict=True)])
    assert abs(brightness.mean() - expected.mean()) < 4 * expected.std() / len(seeds) ** 0.5
    assert 0.7 < brightness.std() / expected.std() < 1.4


class TwoSizes(Streets):
    """All images but the first are smaller."""

    def __getitem__(self, index: int) -> Sample:
        image, label = super().__getitem__(index)
        return Sample(image[:-8], label[:-8]) if index else Sample(image, label)


def test_unsupported_settings_are_refused(command: Command, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one size"):
        load_batches(TwoSizes("train", 2), 2)
    hue = command(
        "train", "experiment=quickstart", "data.on_device=true", "data.jitter.hue=0.1", f"output_dir={tmp_path / 'a'}"
    )
    assert hue.code == 2
    assert "data.jitter.hue=0" in hue.err
    both = command(
        "train",
        "experiment=quickstart",
        "data.on_device=true",
        f"data.unlabeled={tmp_path}",
        f"output_dir={tmp_path / 'b'}",
    )
    assert both.code == 2
    assert "data.on_device=false" in both.err


def test_training_on_the_device_reduces_the_loss(command: Command, tmp_path: Path) -> None:
    overrides = [
        "experiment=quickstart",
        "data.on_device=true",
        "data.scale=[0.5,2]",
        "trainer.max_epochs=2",
        "trainer.limit_val_batches=1",
        "wandb.mode=disabled",
    ]
    result = command("train", *overrides, f"output_dir={tmp_path / 'run'}")
    assert result.code == 0, result.err
    losses = np.genfromtxt(tmp_path / "run/metrics.csv", delimiter=",", names=True)["traincross_entropy"]
    losses = losses[~np.isnan(losses)]
    assert len(losses) == 14
    assert losses[-3:].mean() < 0.9 * losses[:3].mean()
