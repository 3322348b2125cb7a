"""Images without labels beside the labelled ones."""

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
from segkd.data.unlabelled import UnlabelledImages
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of as many sizes, one in a subfolder, and a file that is no image."""
    rng = np.random.default_rng(0)
    for index in range(5):
        path = tmp_path / "more" / f"{index}.jpg" if index == 3 else tmp_path / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (20 + 7 * index, 70 - 9 * index, 3), dtype=np.uint8))
    (tmp_path / "readme.txt").write_text("no image")
    return tmp_path


def global_batches(world: int, epochs: int, unlabelled: tuple[int, int]) -> list[list[SampleIndex]]:
    batches = []
    shards = [DistributedShuffleSampler(9, 4, 7, rank, world, unlabelled) for rank in range(world)]
    for epoch in range(epochs):
        draws = []
        for shard in shards:
            shard.set_epoch(epoch)
            draws.append(list(shard))
            assert len(shard) == len(draws[-1])
        share = (4 + unlabelled[1]) // world
        batches += [
            sorted(chain.from_iterable(d[step * share : (step + 1) * share] for d in draws)) for step in range(9 // 4)
        ]
    return batches


def test_every_global_batch_has_its_share_of_both_on_any_number_of_processes() -> None:
    alone = global_batches(1, 3, (5, 2))
    assert global_batches(2, 3, (5, 2)) == alone
    assert [Counter(draw.labelled for draw in batch) for batch in alone] == [Counter({True: 4, False: 2})] * 6
    plain = [[d for d in batch if d.labelled] for batch in alone]
    assert plain == global_batches(1, 3, (0, 0))  # the labelled images come as they would alone


def test_all_are_seen_before_one_is_seen_again_across_epochs() -> None:
    seen = [d.image for batch in global_batches(1, 10, (5, 2)) for d in batch if not d.labelled]
    assert len(seen) == 40
    assert set(Counter(seen).values()) == {8}


def test_a_batch_larger_than_the_folder_sees_images_anew() -> None:
    (batch, *_) = global_batches(1, 1, (5, 12))
    drawn = [d for d in batch if not d.labelled]
    assert len(set(drawn)) == 12  # of one image in another turn, which augments it in another way


def test_they_have_no_label_and_every_pixel_is_valid(folder: Path) -> None:
    samples = SampleDataset(Streets("train", 4), Augmentation((16, 16), (1.0, 1.0)), 0, UnlabelledImages(folder, 40))
    for image in range(5):
        batch = samples[SampleIndex(image, 0, labelled=False)]
        assert batch.images.shape == (3, 16, 16)
        assert (batch.target == IGNORE_INDEX).all()
        assert batch.valid.all()
    assert samples[SampleIndex(0, 0)].target.ne(IGNORE_INDEX).any()
    assert samples[SampleIndex(0, 0, labelled=False)].seeds != samples[SampleIndex(0, 0)].seeds


def test_they_have_the_height_of_the_labelled_ones_and_their_own_shape(folder: Path) -> None:
    images = UnlabelledImages(folder, 40)
    assert [sample.image.shape for sample in (images[i] for i in range(5))] == [
        (40, 140, 3),
        (40, 90, 3),
        (40, 61, 3),
        (40, 28, 3),
        (40, 42, 3),
    ]
    assert images[0].label.shape == (40, 140)


def test_small_ones_are_padded_to_the_crop(folder: Path) -> None:
    samples = SampleDataset(Streets("train", 4), Augmentation((64, 64), (1.0, 1.0)), 0, UnlabelledImages(folder, 20))
    batch = samples[SampleIndex(0, 0, labelled=False)]
    assert batch.valid.sum() == 20 * 64


def test_the_loader_mixes_them(folder: Path) -> None:
    def data(images: UnlabelledImages | None, per_batch: int) -> SegmentationDataModule:
        return SegmentationDataModule(
            Streets("train", 9),
            Streets("val", 9),
            Augmentation((32, 32)),
            4,
            unlabelled=images,
            unlabelled_per_batch=per_batch,
        )

    mixed = list(data(UnlabelledImages(folder, 20), 2).train_dataloader())
    plain = list(data(None, 0).train_dataloader())
    assert len(mixed) == len(plain) == 2
    for both, alone in zip(mixed, plain, strict=True):
        assert torch.equal(both.images[:4], alone.images)
        assert (both.target[4:] == IGNORE_INDEX).all()
        assert len(both.target) == 6


def test_what_is_no_folder_of_images_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder"):
        UnlabelledImages(tmp_path / "nowhere", 20)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no image"):
        UnlabelledImages(tmp_path / "empty", 20)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:50])
    with pytest.raises(UserError, match=r"0.png is no whole image \(50 bytes\)"):
        UnlabelledImages(folder, 20)[0]
