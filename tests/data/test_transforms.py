"""Augmentation: a function of (seed, epoch, image), the same for image and label, and honest about what it padded."""

from __future__ import annotations

from collections.abc import Iterator

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


class Same(Streets):
    """One asymmetric picture under every number, so that only augmentation makes a difference."""

    def __getitem__(self, index: int) -> Sample:
        return _PICTURE


class Unseeded(Augmentation):
    """What albumentations does by itself."""

    def __call__(self, sample: Sample, key: int) -> Batch:
        changed = self.pipeline(image=sample.image, mask=sample.label)
        return to_batch(changed["image"], changed["mask"], key)


_PICTURE = Streets("train")[0]
JITTER = ColorJitter(0.3, 0.3, 0.3, 0.1)


def served(workers: int, augmentation: Augmentation, seed: int = 0, epochs: int = 2, images: int = 8) -> list[Batch]:
    """Every sample of the epochs, in order; sample i comes from worker i % workers."""

    def epochs_of() -> Iterator[Batch]:
        order = DistributedShuffleSampler(images, 1, seed)
        batches = build_loader(SampleDataset(Same("train", images), augmentation, seed), order, workers=workers)
        for epoch in range(epochs):
            order.set_epoch(epoch)
            yield from batches

    return list(epochs_of())


def distinct(batches: list[Batch]) -> int:
    return len({batch.images.numpy().tobytes() for batch in batches})


def test_workers_change_nothing() -> None:
    augmentation = Augmentation((64, 96), jitter=JITTER)
    alone, shared = served(0, augmentation), served(2, augmentation)
    assert len(alone) == len(shared) == 16
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_two_samples_alike(workers: int) -> None:
    """Not in one epoch, nor in two, nor in two workers, nor with another seed."""
    augmentation = Augmentation((64, 96), jitter=JITTER)
    batches = served(workers, augmentation) + served(workers, augmentation, seed=1)
    assert distinct(batches) == len(batches) == 32


def test_workers_repeat_each_other_without_the_key() -> None:
    """The control: an albumentations pipeline by itself fails both checks."""
    augmentation = Unseeded((64, 96), jitter=JITTER)
    batches = served(2, augmentation, epochs=1)
    assert distinct(batches) == len(batches) // 2
    assert distinct(served(0, augmentation, epochs=1) + batches) > len(batches) // 2


def test_keys_differ_and_stay_what_they_are() -> None:
    keys = {sample_seed(seed, epoch, image) for seed in range(4) for epoch in range(20) for image in range(50)}
    assert len(keys) == 4000
    assert all(0 <= key < 2**63 for key in keys)
    low, high = np.random.SeedSequence([3, 2, 1]).generate_state(2, np.uint32).tolist()
    assert sample_seed(3, 2, 1) == low + (high % 2**31) * 2**32


def blocks() -> Sample:
    """Blocks of two far classes whose colour says the class."""
    label = np.random.default_rng(0).integers(0, 2, (8, 12)).astype(np.uint8) * 10
    label = np.kron(label, np.ones((12, 12), np.uint8))
    return Sample(np.ascontiguousarray(label[..., None].repeat(3, 2) * 20), label)


def aligned(batch: Batch) -> bool:
    """Colour and class belong together, but within two pixels of another block, where colours mix."""
    label = batch.target.numpy().astype(np.uint8)
    inner = cv2.erode(label, np.ones((5, 5))) == cv2.dilate(label, np.ones((5, 5)))
    inner &= (
        cv2.erode(batch.valid.numpy().astype(np.uint8), np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        == 1
    )
    return bool(inner.any()) and bool(
        (abs(batch.images[0].numpy().astype(int) - 20 * label.astype(int))[inner] <= 2).all()
    )


def test_label_and_image_move_together_and_labels_never_mix() -> None:
    augmentation = Augmentation((80, 80))
    batches = [augmentation(blocks(), key) for key in range(40)]
    assert all(aligned(batch) for batch in batches)
    assert {int(c) for batch in batches for c in batch.target.unique()} == {0, 10, IGNORE_INDEX}
    assert not aligned(batches[0]._replace(target=batches[0].target.flip(-1)))  # the controls
    enlarged = cv2.resize(blocks().label, (200, 200), interpolation=cv2.INTER_LINEAR)
    assert set(np.unique(enlarged)) > {0, 10}


def test_flips_left_and_right_and_never_upside_down() -> None:
    image, label = _PICTURE
    outcomes = set()
    for key in range(32):
        batch = Augmentation(Streets.size, scale=(1.0, 1.0))(_PICTURE, key)
        assert batch.valid.all()
        for name, axis in {"as it is": None, "left and right": 1, "upside down": 0}.items():
            seen = image if axis is None else np.flip(image, axis)
            if (batch.images.permute(1, 2, 0).numpy() == seen).all():
                outcomes.add(name)
                assert (batch.target.numpy() == (label if axis is None else np.flip(label, axis))).all()
    assert outcomes == {"as it is", "left and right"}


def padded(augmentation: Augmentation, key: int) -> tuple[Batch, np.ndarray]:
    """A picture that is 255 everywhere with a void stripe, in a larger crop; and where it lies there."""
    label = np.zeros((40, 60), np.uint8)
    label[:, 20:30] = IGNORE_INDEX
    batch = augmentation(Sample(np.full((40, 60, 3), 255, np.uint8), label), key)
    return batch, (batch.images == 255).all(0).numpy()


def test_what_was_padded_is_not_valid_and_void_is() -> None:
    augmentation = Augmentation((64, 96), scale=(1.0, 1.0), fill=(10.4, 20.6, 30.0))
    places = set()
    for key in range(8):
        batch, lies = padded(augmentation, key)
        assert lies.sum() == 40 * 60
        assert (batch.valid.numpy() == lies).all()
        assert (batch.target.numpy()[~lies] == IGNORE_INDEX).all()
        assert (batch.target.numpy()[lies] == IGNORE_INDEX).sum() == 40 * 10
        assert (batch.images.permute(1, 2, 0).numpy()[~lies] == (10, 21, 30)).all()
        places.add(tuple(np.argwhere(lies)[0]))
    assert len(places) > 1


def test_void_would_be_lost_with_one_mark_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(transforms, "_PADDING", IGNORE_INDEX)
    batch, lies = padded(Augmentation((64, 96), scale=(1.0, 1.0)), 0)
    assert (batch.valid.numpy() != lies).sum() == 40 * 10


def test_jitter_changes_colours_alone() -> None:
    plain, coloured = (Augmentation((64, 96), jitter=jitter)(_PICTURE, 5) for jitter in (ColorJitter(), JITTER))
    assert torch.equal(plain.target, coloured.target)
    assert torch.equal(plain.valid, coloured.valid)
    assert not torch.equal(plain.images, coloured.images)


def test_kinds_of_tensors() -> None:
    batch = Augmentation((64, 96))(_PICTURE, 2**40 + 3)
    assert [(t.dtype, tuple(t.shape)) for t in batch] == [
        (torch.uint8, (3, 64, 96)),
        (torch.int64, (64, 96)),
        (torch.bool, (64, 96)),
        (torch.int64, ()),
    ]
    assert batch.seeds == 2**40 + 3


class OneSeed(Augmentation):
    """What a pipeline does that is seeded as a whole."""

    def __call__(self, sample: Sample, key: int) -> Batch:
        self.pipeline.set_random_seed(key & 0xFFFFFFFF)
        changed = self.pipeline(image=sample.image, mask=sample.label)
        return to_batch(changed["image"], changed["mask"], key)


def what_was_drawn(images: torch.Tensor) -> np.ndarray:
    """Of crops N 3 H W of a picture of its own coordinates, enlarged 1.3 to 2 times: scale, place of the crop, flip, brightness; N 5."""
    rows, columns, blue = (channel.double() / 200 for channel in images.unbind(1))
    bright = blue.mean((1, 2))
    rows, columns = rows / bright[:, None, None], columns / bright[:, None, None]
    extent = (rows[:, -1] - rows[:, 0]).mean(1)
    flipped = columns[:, :, 0].mean(1) > columns[:, :, -1].mean(1)
    scale = images.shape[-2] / ROWS / extent
    top = rows[:, 0].mean(1) / (1 - extent)
    left = columns.amin((1, 2)) / (1 - (columns.amax((1, 2)) - columns.amin((1, 2))))
    return np.stack([scale, top, left, flipped, bright], 1)


ROWS, COLUMNS = 60, 80
COORDINATES = Sample(
    np.stack(np.broadcast_arrays(np.linspace(0, 100, ROWS)[:, None], np.linspace(0, 100, COLUMNS)[None], 100.0), -1)
    .round()
    .astype(np.uint8),
    np.zeros((ROWS, COLUMNS), np.uint8),
)


@pytest.mark.parametrize("kind", [Augmentation, DeviceAugmentation, OneSeed])
def test_nothing_that_is_drawn_follows_from_something_else(kind: type[Augmentation]) -> None:
    augmentation = kind((50, 70), (1.3, 2.0), 0.5, ColorJitter(brightness=0.4))
    keys = [sample_seed(0, 0, i) for i in range(1500)]
    if isinstance(augmentation, DeviceAugmentation):
        image, label = (torch.from_numpy(a) for a in COORDINATES)
        drawn = augmentation.draw(keys, (ROWS, COLUMNS))
        crops = augmentation(
            image.permute(2, 0, 1).expand(len(keys), -1, -1, -1), label.expand(len(keys), -1, -1), drawn
        )[0]
    else:
        crops = torch.stack([augmentation(COORDINATES, key).images for key in keys])
    found = np.corrcoef(what_was_drawn(crops), rowvar=False)
    apart = np.abs(found - np.eye(len(found))).max()
    # Of 1,500 independent pairs the greatest of ten correlations is below 0.1 but once in a thousand.
    assert apart > 0.8 if kind is OneSeed else apart < 0.1, found.round(2)
