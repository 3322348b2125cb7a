"""Augmentation: a function of (seed, epoch, image), the same for image and label, and correct about padding."""

from __future__ import annotations

from collections.abc import Iterator

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from segkd.data import transforms
from segkd.data.base import Sample
from segkd.data.datamodule import SampleDataset, build_loader
from segkd.data.device_augmentation import DeviceAugmentation
from segkd.data.samplers import DistributedShuffleSampler
from segkd.data.streets import Streets
from segkd.data.transforms import Augmentation, ColorJitter, sample_seed, to_batch
from segkd.types import IGNORE_INDEX, Batch

SCENE = Streets("train")[0]
JITTER = ColorJitter(0.3, 0.3, 0.3, 0.1)


class OneImage(Streets):
    """The same asymmetric image at every index, so that samples differ by augmentation alone."""

    def __getitem__(self, index: int) -> Sample:
        return SCENE


class Unseeded(Augmentation):
    """An albumentations pipeline without our seeds."""

    def __call__(self, sample: Sample, seed: int) -> Batch:
        augmented = self.pipeline(image=sample.image, mask=sample.label)
        return to_batch(augmented["image"], augmented["mask"], seed)


class OneSeed(Augmentation):
    """A pipeline that is seeded as a whole, not transform by transform."""

    def __call__(self, sample: Sample, seed: int) -> Batch:
        self.pipeline.set_random_seed(seed & 0xFFFFFFFF)
        augmented = self.pipeline(image=sample.image, mask=sample.label)
        return to_batch(augmented["image"], augmented["mask"], seed)


def load_batches(
    workers: int, augmentation: Augmentation, seed: int = 0, epochs: int = 2, images: int = 8
) -> list[Batch]:
    """Load every sample of the epochs in order; sample i comes from worker i % workers."""

    def iterate_epochs() -> Iterator[Batch]:
        sampler = DistributedShuffleSampler(images, 1, seed)
        batches = build_loader(SampleDataset(OneImage("train", images), augmentation, seed), sampler, workers=workers)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            yield from batches

    return list(iterate_epochs())


def count_distinct(batches: list[Batch]) -> int:
    return len({batch.images.numpy().tobytes() for batch in batches})


@pytest.fixture(scope="module", params=[0, 2], ids=["in process", "two workers"])
def batches(request: pytest.FixtureRequest) -> list[Batch]:
    return load_batches(request.param, Augmentation((64, 96), jitter=JITTER))


@pytest.fixture(scope="module")
def reference_batches() -> list[Batch]:
    return load_batches(0, Augmentation((64, 96), jitter=JITTER))


def test_samples_do_not_depend_on_workers(batches: list[Batch], reference_batches: list[Batch]) -> None:
    assert len(batches) == len(reference_batches) == 16
    for one, other in zip(batches, reference_batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_no_two_samples_are_alike(batches: list[Batch]) -> None:
    """Neither within an epoch, nor across epochs, workers and seeds."""
    other_seed = load_batches(0, Augmentation((64, 96), jitter=JITTER), seed=1)
    assert count_distinct(batches + other_seed) == len(batches + other_seed) == 32


def test_workers_repeat_each_other_without_seeds() -> None:
    """Negative control: an albumentations pipeline by itself fails both checks."""
    augmentation = Unseeded((64, 96), jitter=JITTER)
    batches = load_batches(2, augmentation, epochs=1)
    assert count_distinct(batches) == len(batches) // 2
    assert count_distinct(load_batches(0, augmentation, epochs=1) + batches) > len(batches) // 2


def test_sample_seeds_differ_and_are_stable() -> None:
    seeds = {sample_seed(seed, epoch, image) for seed in range(4) for epoch in range(20) for image in range(50)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
    low, high = np.random.SeedSequence([3, 2, 1]).generate_state(2, np.uint32).tolist()
    assert sample_seed(3, 2, 1) == low + (high % 2**31) * 2**32


def make_blocks() -> Sample:
    """Return blocks of the classes 0 and 10, whose gray value is 20 times the class."""
    label = np.random.default_rng(0).integers(0, 2, (8, 12)).astype(np.uint8) * 10
    label = np.kron(label, np.ones((12, 12), np.uint8))
    return Sample(np.ascontiguousarray(label[..., None].repeat(3, 2) * 20), label)


def is_aligned(batch: Batch) -> bool:
    """Return whether gray values match classes, except within two pixels of another block, where they mix."""
    label = batch.target.numpy().astype(np.uint8)
    valid = batch.valid.numpy().astype(np.uint8)
    kernel = np.ones((5, 5))
    inner = cv2.erode(label, kernel) == cv2.dilate(label, kernel)
    inner &= cv2.erode(valid, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) == 1
    difference = abs(batch.images[0].numpy().astype(int) - 20 * label.astype(int))
    return bool(inner.any()) and bool((difference[inner] <= 2).all())


def test_image_and_label_move_together_and_labels_do_not_mix() -> None:
    augmentation = Augmentation((80, 80))
    batches = [augmentation(make_blocks(), seed) for seed in range(40)]
    assert all(is_aligned(batch) for batch in batches)
    assert {int(c) for batch in batches for c in batch.target.unique()} == {0, 10, IGNORE_INDEX}
    assert not is_aligned(batches[0]._replace(target=batches[0].target.flip(-1)))  # negative controls
    resized = cv2.resize(make_blocks().label, (200, 200), interpolation=cv2.INTER_LINEAR)
    assert set(np.unique(resized)) > {0, 10}


def test_flips_are_horizontal() -> None:
    image, label = SCENE
    outcomes = set()
    for seed in range(32):
        batch = Augmentation(Streets.size, scale=(1.0, 1.0))(SCENE, seed)
        assert batch.valid.all()
        for name, axis in {"unchanged": None, "horizontal": 1, "vertical": 0}.items():
            expected = image if axis is None else np.flip(image, axis)
            if (batch.images.permute(1, 2, 0).numpy() == expected).all():
                outcomes.add(name)
                assert (batch.target.numpy() == (label if axis is None else np.flip(label, axis))).all()
    assert outcomes == {"unchanged", "horizontal"}


def pad(augmentation: Augmentation, seed: int) -> tuple[Batch, np.ndarray]:
    """Augment a white image with a stripe of void in a larger crop; return the mask of the image's pixels too."""
    label = np.zeros((40, 60), np.uint8)
    label[:, 20:30] = IGNORE_INDEX
    batch = augmentation(Sample(np.full((40, 60, 3), 255, np.uint8), label), seed)
    return batch, (batch.images == 255).all(0).numpy()


def test_padding_is_not_valid_but_void_is() -> None:
    augmentation = Augmentation((64, 96), scale=(1.0, 1.0), fill=(10.4, 20.6, 30.0))
    positions = set()
    for seed in range(8):
        batch, is_image = pad(augmentation, seed)
        assert is_image.sum() == 40 * 60
        assert (batch.valid.numpy() == is_image).all()
        assert (batch.target.numpy()[~is_image] == IGNORE_INDEX).all()
        assert (batch.target.numpy()[is_image] == IGNORE_INDEX).sum() == 40 * 10
        assert (batch.images.permute(1, 2, 0).numpy()[~is_image] == (10, 21, 30)).all()
        positions.add(tuple(np.argwhere(is_image)[0]))
    assert len(positions) > 1


def test_void_would_be_invalid_if_padding_used_the_same_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(transforms, "_PADDING", IGNORE_INDEX)
    batch, is_image = pad(Augmentation((64, 96), scale=(1.0, 1.0)), 0)
    assert (batch.valid.numpy() != is_image).sum() == 40 * 10


def test_jitter_changes_colors_alone() -> None:
    plain, jittered = (Augmentation((64, 96), jitter=jitter)(SCENE, 5) for jitter in (ColorJitter(), JITTER))
    assert torch.equal(plain.target, jittered.target)
    assert torch.equal(plain.valid, jittered.valid)
    assert not torch.equal(plain.images, jittered.images)


def test_dtypes_and_shapes() -> None:
    batch = Augmentation((64, 96))(SCENE, 2**40 + 3)
    assert [(t.dtype, tuple(t.shape)) for t in batch] == [
        (torch.uint8, (3, 64, 96)),
        (torch.int64, (64, 96)),
        (torch.bool, (64, 96)),
        (torch.int64, ()),
    ]
    assert batch.seeds == 2**40 + 3


ROWS, COLUMNS = 60, 80
COORDINATES = Sample(
    np.stack(np.broadcast_arrays(np.linspace(0, 100, ROWS)[:, None], np.linspace(0, 100, COLUMNS)[None], 100.0), -1)
    .round()
    .astype(np.uint8),
    np.zeros((ROWS, COLUMNS), np.uint8),
)
"""An image whose red is the row and whose green is the column."""


def recover_params(images: torch.Tensor) -> np.ndarray:
    """Recover scale, top, left, flip and brightness, N 5, from crops N 3 H W of COORDINATES enlarged 1.3 to 2 times."""
    rows, columns, blue = (channel.double() / 200 for channel in images.unbind(1))
    brightness = blue.mean((1, 2))
    rows, columns = rows / brightness[:, None, None], columns / brightness[:, None, None]
    extent = (rows[:, -1] - rows[:, 0]).mean(1)
    flipped = columns[:, :, 0].mean(1) > columns[:, :, -1].mean(1)
    scale = images.shape[-2] / ROWS / extent
    top = rows[:, 0].mean(1) / (1 - extent)
    left = columns.amin((1, 2)) / (1 - (columns.amax((1, 2)) - columns.amin((1, 2))))
    return np.stack([scale, top, left, flipped, brightness], 1)


@pytest.mark.parametrize("kind", [Augmentation, DeviceAugmentation, OneSeed])
def test_parameters_are_independent(kind: type[Augmentation]) -> None:
    """`OneSeed` is the negative control."""
    augmentation = kind((50, 70), (1.3, 2.0), 0.5, ColorJitter(brightness=0.4))
    seeds = [sample_seed(0, 0, i) for i in range(1500)]
    if isinstance(augmentation, DeviceAugmentation):
        image, label = (torch.from_numpy(a) for a in COORDINATES)
        params = augmentation.sample_params(seeds, (ROWS, COLUMNS))
        images, labels = image.permute(2, 0, 1).expand(len(seeds), -1, -1, -1), label.expand(len(seeds), -1, -1)
        crops, _, _ = augmentation(images, labels, params)
    else:
        crops = torch.stack([augmentation(COORDINATES, seed).images for seed in seeds])
    correlations = np.corrcoef(recover_params(crops), rowvar=False)
    largest = np.abs(correlations - np.eye(len(correlations))).max()
    # Among 1,500 independent pairs the largest of ten correlations exceeds 0.1 once in a thousand times.
    assert largest > 0.8 if kind is OneSeed else largest < 0.1, correlations.round(2)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 1), (2, 3)])
def test_tiny_images_are_scaled_to_a_pixel_at_least(size: tuple[int, int]) -> None:
    """albumentations alone makes a side of zero pixels, which OpenCV refuses."""
    sample = Sample(np.full((*size, 3), 7, np.uint8), np.full(size, 2, np.uint8))
    for augmentation in (Augmentation((16, 24), (0.1, 2.0)), Augmentation((16, 24), (0.3, 0.3))):
        for seed in range(20):
            batch = augmentation(sample, seed)
            assert batch.valid.any()
            assert (batch.target[batch.valid] == 2).all()
            assert (batch.images[:, batch.valid] == 7).all()
    params = DeviceAugmentation((16, 24), (0.1, 2.0)).sample_params(range(20), size)
    images, labels = (
        torch.from_numpy(part)[None].expand(20, *part.shape) for part in (sample.image.transpose(2, 0, 1), sample.label)
    )
    _, target, valid = DeviceAugmentation((16, 24), (0.1, 2.0))(images, labels, params)
    assert valid.flatten(1).any(1).all()
    assert (target[valid] == 2).all()
    with pytest.raises(cv2.error, match="inv_scale"):
        A.RandomScale((-0.9, -0.9), p=1.0)(image=np.zeros((1, 4, 3), np.uint8))


def test_scaling_of_other_images_is_that_of_albumentations(monkeypatch: pytest.MonkeyPatch) -> None:
    augmentation = Augmentation((64, 64))
    ours = [augmentation(SCENE, seed) for seed in range(5)]
    monkeypatch.setattr(transforms, "RandomScale", A.RandomScale)
    augmentation = Augmentation((64, 64))
    for batch, seed in zip(ours, range(5), strict=True):
        assert torch.equal(batch.images, augmentation(SCENE, seed).images)
        assert torch.equal(batch.target, augmentation(SCENE, seed).target)
