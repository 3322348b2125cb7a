"""Unlabeled images: their share of each batch, their labels and their sizes."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segkd.data.datamodule import SampleDataset, SegmentationDataModule
from segkd.data.samplers import DistributedShuffleSampler, SampleIndex
from segkd.data.streets import Streets
from segkd.data.transforms import Augmentation
from segkd.data.unlabeled import UnlabeledImages
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of different sizes, one in a subfolder, and a text file."""
    rng = np.random.default_rng(0)
    for index in range(5):
        path = tmp_path / "subfolder" / f"{index}.jpg" if index == 3 else tmp_path / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (20 + 7 * index, 70 - 9 * index, 3), dtype=np.uint8))
    (tmp_path / "readme.txt").write_text("no image")
    return tmp_path


def collect_global_batches(world_size: int, epochs: int, unlabeled: tuple[int, int]) -> list[list[SampleIndex]]:
    batches = []
    samplers = [DistributedShuffleSampler(9, 4, 7, rank, world_size, unlabeled) for rank in range(world_size)]
    share = (4 + unlabeled[1]) // world_size
    for epoch in range(epochs):
        indices = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            indices.append(list(sampler))
            assert len(sampler) == len(indices[-1])
        batches += [
            sorted(chain.from_iterable(of_rank[step * share : (step + 1) * share] for of_rank in indices))
            for step in range(9 // 4)
        ]
    return batches


def test_global_batches_do_not_depend_on_the_number_of_processes() -> None:
    alone = collect_global_batches(1, 3, (5, 2))
    assert collect_global_batches(2, 3, (5, 2)) == alone
    assert [Counter(index.labeled for index in batch) for batch in alone] == [Counter({True: 4, False: 2})] * 6
    labeled = [[index for index in batch if index.labeled] for batch in alone]
    assert labeled == collect_global_batches(1, 3, (0, 0))  # unlabeled images do not change the order of labeled ones


def test_each_image_is_used_before_any_repeats() -> None:
    batches = collect_global_batches(1, 10, (5, 2))
    images = [index.image for batch in batches for index in batch if not index.labeled]
    assert len(images) == 40
    assert set(Counter(images).values()) == {8}


def test_repeats_within_a_batch_are_augmented_differently() -> None:
    (batch, *_) = collect_global_batches(1, 1, (5, 12))
    unlabeled = [index for index in batch if not index.labeled]
    assert len(set(unlabeled)) == 12  # a repeated image has another epoch, which seeds its augmentation


def test_labels_are_ignored_and_pixels_are_valid(folder: Path) -> None:
    samples = SampleDataset(Streets("train", 4), Augmentation((16, 16), (1.0, 1.0)), 0, UnlabeledImages(folder, 40))
    for image in range(5):
        batch = samples[SampleIndex(image, 0, labeled=False)]
        assert batch.images.shape == (3, 16, 16)
        assert (batch.target == IGNORE_INDEX).all()
        assert batch.valid.all()
    assert samples[SampleIndex(0, 0)].target.ne(IGNORE_INDEX).any()
    assert samples[SampleIndex(0, 0, labeled=False)].seeds != samples[SampleIndex(0, 0)].seeds


def test_images_get_the_given_height_and_keep_their_aspect_ratio(folder: Path) -> None:
    images = UnlabeledImages(folder, 40)
    assert [sample.image.shape for sample in (images[i] for i in range(5))] == [
        (40, 140, 3),
        (40, 90, 3),
        (40, 61, 3),
        (40, 28, 3),
        (40, 42, 3),
    ]
    assert images[0].label.shape == (40, 140)


def test_small_images_are_padded_to_the_crop(folder: Path) -> None:
    samples = SampleDataset(Streets("train", 4), Augmentation((64, 64), (1.0, 1.0)), 0, UnlabeledImages(folder, 20))
    batch = samples[SampleIndex(0, 0, labeled=False)]
    assert batch.valid.sum() == 20 * 64


def test_batches_contain_labeled_then_unlabeled_images(folder: Path) -> None:
    def build_datamodule(images: UnlabeledImages | None, per_batch: int) -> SegmentationDataModule:
        return SegmentationDataModule(
            Streets("train", 9),
            Streets("val", 9),
            Augmentation((32, 32)),
            4,
            unlabeled=images,
            unlabeled_per_batch=per_batch,
        )

    mixed = list(build_datamodule(UnlabeledImages(folder, 20), 2).train_dataloader())
    plain = list(build_datamodule(None, 0).train_dataloader())
    assert len(mixed) == len(plain) == 2
    for both, alone in zip(mixed, plain, strict=True):
        assert torch.equal(both.images[:4], alone.images)
        assert (both.target[4:] == IGNORE_INDEX).all()
        assert len(both.target) == 6


def test_images_are_found_through_links_and_left_out_ones_are_told(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path_factory.mktemp("unlabeled")
    (root / "linked").symlink_to(folder)
    (root / "raw.dng").touch()
    assert len(UnlabeledImages(root, 20)) == 5
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{root}/raw.dng is not read")


def test_folder_without_images_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder"):
        UnlabeledImages(tmp_path / "nowhere", 20)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no image"):
        UnlabeledImages(tmp_path / "empty", 20)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:50])
    with pytest.raises(UserError, match=r"0.png is not a complete image \(50 bytes\)"):
        UnlabeledImages(folder, 20)[0]
