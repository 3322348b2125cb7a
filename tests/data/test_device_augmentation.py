"""The training split on the device: the same law as albumentations', drawn for each sample, whatever its batch."""

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


def sample(seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 10, 3), np.uint8)
    label = cv2.resize(rng.integers(0, 11, (12, 16), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return Sample(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), label)


def drawn(
    scale: tuple[float, float] = (1, 1),
    offset: tuple[int, int] = (0, 0),
    flip: bool = False,
    color: tuple[float, ...] = (1, 1, 1),
) -> AugmentationParams:
    numbers = (torch.tensor([given], dtype=torch.float64) for given in (scale, offset, color))
    scales, offsets, colors = numbers
    return AugmentationParams(scales, offsets, torch.tensor([flip]), colors)


def changed(one: Sample, how: AugmentationParams, crop: tuple[int, int], **more: object) -> tuple[np.ndarray, ...]:
    images = torch.from_numpy(one.image.transpose(2, 0, 1).copy())[None]
    augmentation = DeviceAugmentation(crop, fill=(10, 20, 30), **more)  # type: ignore[arg-type]
    found = augmentation(images, torch.from_numpy(one.label)[None], how)
    return found[0][0].permute(1, 2, 0).numpy(), found[1][0].numpy(), found[2][0].numpy()


@pytest.mark.parametrize("enlarged", [(31, 41), (47, 61), (60, 80), (77, 103), (120, 160)])
@pytest.mark.parametrize("flip", [False, True])
def test_it_is_opencv_s_resize_then_a_crop(enlarged: tuple[int, int], flip: bool) -> None:
    one, crop = sample(), (28, 36)
    top, left = (enlarged[0] - crop[0]) // 3, (enlarged[1] - crop[1]) // 2
    image, label, valid = changed(one, drawn((enlarged[0] / HEIGHT, enlarged[1] / WIDTH), (top, left), flip), crop)
    size = (enlarged[1], enlarged[0])
    expected = cv2.resize(one.image, size, interpolation=cv2.INTER_LINEAR)[top : top + crop[0], left : left + crop[1]]
    rows, columns = (
        np.floor((np.arange(first, first + wanted) + 0.5) * side / there).astype(
            int
        )  # of the pixel that holds the centre
        for first, wanted, side, there in zip((top, left), crop, (HEIGHT, WIDTH), enlarged, strict=True)
    )
    classes = one.label[rows][:, columns]
    if flip:
        expected, classes = expected[:, ::-1], classes[:, ::-1]
    assert np.abs(image.astype(int) - expected).max() <= 1  # OpenCV's weights have 11 bits
    assert valid.all()
    assert (label == classes).all()


def test_nothing_to_do_changes_nothing() -> None:
    one = sample()
    image, label, valid = changed(one, drawn(), (HEIGHT, WIDTH))
    assert (image == one.image).all()
    assert (label == one.label).all()
    assert valid.all()
    mirrored, label, _ = changed(one, drawn(flip=True), (HEIGHT, WIDTH))
    assert (mirrored == one.image[:, ::-1]).all()
    assert (label == one.label[:, ::-1]).all()


def test_what_lies_outside_is_filled_and_counts_for_nobody() -> None:
    one = sample()
    image, label, valid = changed(one, drawn((0.5, 0.5), (-4, -7)), (40, 60))
    inside = np.s_[4:34, 7:47]
    assert valid[inside].all()
    assert valid.sum() == 30 * 40
    assert (image[~valid] == (10, 20, 30)).all()
    assert (label[~valid] == IGNORE_INDEX).all()
    expected = cv2.resize(one.image, (40, 30), interpolation=cv2.INTER_LINEAR)
    assert np.abs(image[inside].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("place", range(3))
def test_colors_change_as_albumentations_changes_them(place: int) -> None:
    one, factor = sample(), 1.4
    name = ("brightness", "contrast", "saturation")[place]
    color = tuple(factor if i == place else 1.0 for i in range(3))
    image, _, _ = changed(one, drawn(color=color), (HEIGHT, WIDTH), jitter=ColorJitter(**{name: 0.5}))
    expected = getattr(reference, f"adjust_{name}_torchvision")(one.image, factor)
    assert np.abs(image.astype(int) - expected).max() <= 2  # it rounds grey, or its mean, on the way
    assert np.abs(image.astype(int) - one.image).max() > 20


def batches(
    source: SegmentationDataset, batch_size: int, start: tuple[int, int] = (0, 0), epoch: int = 0
) -> list[Batch]:
    sampler = DistributedShuffleSampler(len(source), batch_size, seed=3, start=start)
    sampler.set_epoch(epoch)
    augmentation = DeviceAugmentation((96, 128), jitter=ColorJitter(0.4, 0.4, 0.4))
    loader = DeviceLoader(source, augmentation, sampler, batch_size, 3, torch.device("cpu"))
    found = list(loader)
    assert len(loader) == len(source) // batch_size
    return found


def test_a_sample_is_the_same_in_any_batch_and_after_a_resume() -> None:
    source = Streets("train", 12)
    by_two, by_four = batches(source, 2), batches(source, 4)
    for one, other in zip(
        (torch.cat(each) for each in zip(*by_two, strict=True)),
        (torch.cat(each) for each in zip(*by_four, strict=True)),
        strict=True,
    ):
        assert torch.equal(one, other)
    later = batches(source, 2, epoch=1)
    assert not torch.equal(later[0].images, by_two[0].images)
    resumed = batches(source, 2, start=(1, 4), epoch=1)
    assert len(resumed) == 2
    assert all(
        torch.equal(a, b)
        for ours, theirs in zip(resumed, later[4:], strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_it_draws_by_the_law_of_the_other() -> None:
    """Two samples of 400 draws from each: shares of padded pixels, and the brightness of what is seen."""
    one, crop = sample(), (50, 70)
    keys = [sample_seed(0, 0, i) for i in range(400)]
    other = Augmentation(crop, (0.5, 2.0), 0.5, ColorJitter(brightness=0.4))
    theirs = [other(one, key) for key in keys]
    ours = DeviceAugmentation(crop, (0.5, 2.0), 0.5, ColorJitter(brightness=0.4))
    images = torch.from_numpy(one.image.transpose(2, 0, 1).copy())[None].expand(len(keys), -1, -1, -1)
    labels = torch.from_numpy(one.label)[None].expand(len(keys), -1, -1)
    found = ours(images, labels, ours.draw(keys, (HEIGHT, WIDTH)))
    padded = torch.stack([1 - batch.valid.float().mean() for batch in theirs])
    assert abs((1 - found[2].float().mean((1, 2))).mean() - padded.mean()) < 4 * padded.std() / len(keys) ** 0.5
    bright = torch.stack([batch.images[:, batch.valid].float().mean() for batch in theirs])
    seen = torch.stack([image[:, there].float().mean() for image, there in zip(found[0], found[2], strict=True)])
    assert abs(seen.mean() - bright.mean()) < 4 * bright.std() / len(keys) ** 0.5
    assert 0.7 < seen.std() / bright.std() < 1.4


class TwoSizes(Streets):
    def __getitem__(self, index: int) -> Sample:
        image, label = super().__getitem__(index)
        return Sample(image[:-8], label[:-8]) if index else Sample(image, label)


def test_bad_input(command: Command, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one size"):
        batches(TwoSizes("train", 2), 2)
    hue = command(
        "train", "experiment=quickstart", "data.on_device=true", "data.jitter.hue=0.1", f"output_dir={tmp_path / 'a'}"
    )
    assert hue.code == 2
    assert "data.jitter.hue=0" in hue.err
    both = command(
        "train",
        "experiment=quickstart",
        "data.on_device=true",
        f"data.unlabelled={tmp_path}",
        f"output_dir={tmp_path / 'b'}",
    )
    assert both.code == 2
    assert "data.on_device=false" in both.err


def test_a_run_learns_from_it(command: Command, tmp_path: Path) -> None:
    typed = [
        "experiment=quickstart",
        "data.on_device=true",
        "data.scale=[0.5,2]",
        "trainer.max_epochs=2",
        "wandb.mode=disabled",
    ]
    found = command("train", *typed, f"output_dir={tmp_path / 'run'}")
    assert found.code == 0, found.err
    losses = np.genfromtxt(tmp_path / "run/metrics.csv", delimiter=",", names=True)["traincross_entropy"]
    losses = losses[~np.isnan(losses)]
    assert len(losses) == 14
    assert losses[-3:].mean() < 0.9 * losses[:3].mean()
