"""The order of serving: the same global batches, and every evaluated image once, on any number of processes."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from segkd.data.base import Sample
from segkd.data.datamodule import SampleDataset, SegmentationDataModule, build_loader
from segkd.data.samplers import EMPTY, DistributedEvalSampler, DistributedShuffleSampler, SampleIndex
from segkd.data.streets import Streets
from segkd.data.transforms import Augmentation
from segkd.errors import UserError
from segkd.metrics import ConfusionMatrix
from segkd.types import IGNORE_INDEX


class OwnOrder(DistributedShuffleSampler):
    """A fault: each process shuffles for itself."""

    def __init__(self, length: int, batch_size: int, seed: int, rank: int, world: int) -> None:
        super().__init__(length, batch_size, seed + rank, rank, world)


def global_batches(
    kind: type[DistributedShuffleSampler], length: int, batch: int, world: int, epoch: int = 0, seed: int = 7
) -> list[list[int]]:
    shards = [kind(length, batch, seed, rank, world) for rank in range(world)]
    draws = []
    for shard in shards:
        shard.set_epoch(epoch)
        draws.append(list(shard))
        assert len(shard) == len(draws[-1])
        assert all(draw.epoch == epoch for draw in draws[-1])
    share = batch // world
    steps = len(draws[0]) // share
    return [[d.image for rank in draws for d in rank[step * share : (step + 1) * share]] for step in range(steps)]


@pytest.mark.parametrize("length", [4, 9, 11, 16])
def test_global_batches_do_not_depend_on_processes(length: int) -> None:
    for epoch in range(3):
        alone = global_batches(DistributedShuffleSampler, length, 4, 1, epoch)
        assert [len(batch) for batch in alone] == [4] * (length // 4)
        assert len(set(chain(*alone))) == length // 4 * 4
        for world in (2, 4):
            assert global_batches(DistributedShuffleSampler, length, 4, world, epoch) == alone
    assert global_batches(OwnOrder, 16, 4, 2) != global_batches(OwnOrder, 16, 4, 1)  # the control


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    orders = [
        tuple(chain(*global_batches(DistributedShuffleSampler, 16, 4, 1, epoch, seed)))
        for epoch in range(4)
        for seed in range(4)
    ]
    assert len({*orders, tuple(range(16))}) == 17


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_image_is_evaluated_once(world: int) -> None:
    for length in range(1, 10):
        shards = [list(DistributedEvalSampler(length, rank, world)) for rank in range(world)]
        images = [draw.image for shard in shards for draw in shard if draw != EMPTY]
        assert sorted(images) == list(range(length))
        assert all(shard == [EMPTY] for shard in shards[length:])
        assert all(EMPTY not in shard for shard in shards[:length])


class Specks(Streets):
    """Nine tiny images; the first channel is what `matrix` predicts."""

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        label = rng.integers(0, 12, (4, 5)).astype(np.uint8)
        return Sample(rng.integers(0, 11, (4, 5, 3)).astype(np.uint8), np.where(label == 11, IGNORE_INDEX, label))


def matrix(length: int, samplers: list[object]) -> torch.Tensor:
    """The sum of the confusion matrices of all processes."""
    total = torch.zeros(11, 11, dtype=torch.int64)
    for sampler in samplers:
        counts = ConfusionMatrix(11)
        for batch in build_loader(SampleDataset(Specks("train", images=length)), sampler):  # type: ignore[arg-type]
            counts.update(F.one_hot(batch.images[:, 0].long(), 11).permute(0, 3, 1, 2).float(), batch.target)
        total += counts.counts
    return total


@pytest.mark.parametrize("world", [2, 3, 4])
def test_confusion_matrices_sum_to_that_of_one_process(world: int) -> None:
    for length in range(1, 10):
        alone = matrix(length, [DistributedEvalSampler(length)])
        assert torch.equal(
            matrix(length, [DistributedEvalSampler(length, rank, world) for rank in range(world)]), alone
        )


def test_a_padding_sampler_counts_images_twice() -> None:
    """The control: five images on four processes make eight."""

    class Padding(DistributedSampler[int]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return (SampleIndex(i, 0) for i in super().__iter__())

    padded = [Padding(SampleDataset(Specks("train", images=5)), 4, rank, shuffle=False) for rank in range(4)]
    assert matrix(5, padded).sum() > matrix(5, [DistributedEvalSampler(5)]).sum()  # type: ignore[arg-type]


def test_a_process_without_an_image_counts_nothing() -> None:
    samples = SampleDataset(Specks("train", images=1))
    assert (samples[EMPTY].target == IGNORE_INDEX).all()
    assert (samples[SampleIndex(0, 0)].target != IGNORE_INDEX).any()


def data(batch_size: int, images: int = 10) -> SegmentationDataModule:
    return SegmentationDataModule(Streets("train", images), Streets("val", images), Augmentation((32, 32)), batch_size)


def test_steps_do_not_depend_on_processes() -> None:
    served = data(4)
    assert served.steps_per_epoch() == 2 == len(served.train_dataloader())
    served.trainer = SimpleNamespace(global_rank=1, world_size=2)  # type: ignore[assignment]
    train = served.train_dataloader()
    assert served.steps_per_epoch() == 2 == len(train)
    assert next(iter(train)).images.shape == (2, 3, 32, 32)
    assert len(served.val_dataloader()) == 32
    assert next(iter(served.val_dataloader())).images.shape == (1, 3, *Streets.size)


def test_batch_sizes_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size=11 exceeds the 10 images of train; lower it"):
        data(11)
    odd = data(5)
    odd.trainer = SimpleNamespace(global_rank=0, world_size=2)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"data\.batch_size=5 counts all 2 processes and must be divisible by 2"):
        odd.train_dataloader()


class Threads(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: object) -> int:
        return cv2.getNumThreads()


def test_a_worker_has_one_thread() -> None:
    threads, before = Threads(), cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        assert threads[0] == 4  # what a worker would inherit
        (counted,) = build_loader(threads, SequentialSampler(threads), workers=1)  # type: ignore[arg-type]
    finally:
        cv2.setNumThreads(before)
    assert counted <= 1
