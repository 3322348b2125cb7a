"""Samplers and data module: the same global batches, and each evaluated image once, on any number of processes."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import chain
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
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
    """A faulty sampler: each process has its own order."""

    def __init__(self, length: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        super().__init__(length, batch_size, seed + rank, rank, world_size)


def collect_global_batches(
    kind: type[DistributedShuffleSampler], length: int, batch_size: int, world_size: int, epoch: int = 0, seed: int = 7
) -> list[list[int]]:
    indices = []
    for rank in range(world_size):
        sampler = kind(length, batch_size, seed, rank, world_size)
        sampler.set_epoch(epoch)
        indices.append(list(sampler))
        assert len(sampler) == len(indices[-1])
        assert all(index.epoch == epoch for index in indices[-1])
    share = batch_size // world_size
    steps = len(indices[0]) // share
    return [
        [index.image for of_rank in indices for index in of_rank[step * share : (step + 1) * share]]
        for step in range(steps)
    ]


@pytest.mark.parametrize("length", [4, 9, 11, 16])
def test_global_batches_do_not_depend_on_the_number_of_processes(length: int) -> None:
    for epoch in range(3):
        alone = collect_global_batches(DistributedShuffleSampler, length, 4, 1, epoch)
        assert [len(batch) for batch in alone] == [4] * (length // 4)
        assert len(set(chain(*alone))) == length // 4 * 4
        for world_size in (2, 4):
            assert collect_global_batches(DistributedShuffleSampler, length, 4, world_size, epoch) == alone
    assert collect_global_batches(OwnOrder, 16, 4, 2) != collect_global_batches(OwnOrder, 16, 4, 1)  # the control


def test_order_depends_on_epoch_and_seed() -> None:
    orders = [
        tuple(chain(*collect_global_batches(DistributedShuffleSampler, 16, 4, 1, epoch, seed)))
        for epoch in range(4)
        for seed in range(4)
    ]
    assert len({*orders, tuple(range(16))}) == 17


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_image_is_evaluated_once(world_size: int) -> None:
    for length in range(1, 10):
        shares = [list(DistributedEvalSampler(length, rank, world_size)) for rank in range(world_size)]
        images = [index.image for share in shares for index in share if index != EMPTY]
        assert sorted(images) == list(range(length))
        assert all(share == [EMPTY] for share in shares[length:])
        assert all(EMPTY not in share for share in shares[:length])


class TinyImages(Streets):
    """Images of 4×5; `sum_confusion_matrices` takes the first channel as the prediction."""

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        label = rng.integers(0, 12, (4, 5)).astype(np.uint8)
        return Sample(rng.integers(0, 11, (4, 5, 3)).astype(np.uint8), np.where(label == 11, IGNORE_INDEX, label))


def sum_confusion_matrices(length: int, samplers: list[object]) -> torch.Tensor:
    """Return the sum of the confusion matrices of all processes."""
    total = torch.zeros(11, 11, dtype=torch.int64)
    for sampler in samplers:
        matrix = ConfusionMatrix(11)
        for batch in build_loader(SampleDataset(TinyImages("train", images=length)), sampler):  # type: ignore[arg-type]
            matrix.update(F.one_hot(batch.images[:, 0].long(), 11).permute(0, 3, 1, 2).float(), batch.target)
        total += matrix.counts
    return total


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_confusion_matrices_sum_to_that_of_one_process(world_size: int) -> None:
    for length in range(1, 10):
        alone = sum_confusion_matrices(length, [DistributedEvalSampler(length)])
        assert torch.equal(
            sum_confusion_matrices(
                length, [DistributedEvalSampler(length, rank, world_size) for rank in range(world_size)]
            ),
            alone,
        )


def test_padding_sampler_counts_images_twice() -> None:
    """Negative control: torch's sampler turns five images on four processes into eight."""

    class Padding(DistributedSampler[int]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return (SampleIndex(i, 0) for i in super().__iter__())

    padded = [Padding(SampleDataset(TinyImages("train", images=5)), 4, rank, shuffle=False) for rank in range(4)]
    assert sum_confusion_matrices(5, padded).sum() > sum_confusion_matrices(5, [DistributedEvalSampler(5)]).sum()  # type: ignore[arg-type]


def test_process_without_an_image_contributes_nothing() -> None:
    samples = SampleDataset(TinyImages("train", images=1))
    assert (samples[EMPTY].target == IGNORE_INDEX).all()
    assert (samples[SampleIndex(0, 0)].target != IGNORE_INDEX).any()


def build_datamodule(batch_size: int, images: int = 10) -> SegmentationDataModule:
    return SegmentationDataModule(Streets("train", images), Streets("val", images), Augmentation((32, 32)), batch_size)


def test_steps_do_not_depend_on_the_number_of_processes() -> None:
    datamodule = build_datamodule(4)
    assert datamodule.steps_per_epoch == 2 == len(datamodule.train_dataloader())
    datamodule.trainer = SimpleNamespace(global_rank=1, world_size=2)  # type: ignore[assignment]
    train = datamodule.train_dataloader()
    assert datamodule.steps_per_epoch == 2 == len(train)
    assert next(iter(train)).images.shape == (2, 3, 32, 32)
    assert len(datamodule.val_dataloader()) == 32
    assert next(iter(datamodule.val_dataloader())).images.shape == (1, 3, *Streets.size)


def test_impossible_batch_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size=11 exceeds the 10 images of train; lower it"):
        build_datamodule(11)
    datamodule = build_datamodule(5)
    datamodule.trainer = SimpleNamespace(global_rank=0, world_size=2)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"data\.batch_size=5 counts all 2 processes and must be divisible by 2"):
        datamodule.train_dataloader()


class NumThreads(Dataset[int]):
    """Returns the number of OpenCV threads of the loading process."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: object) -> int:
        return cv2.getNumThreads()


def test_worker_uses_one_thread() -> None:
    dataset, before = NumThreads(), cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        assert dataset[0] == 4  # what a worker would inherit
        (num_threads,) = build_loader(dataset, SequentialSampler(dataset), workers=1)  # type: ignore[arg-type]
    finally:
        cv2.setNumThreads(before)
    assert num_threads <= 1


def test_a_trainer_that_would_shard_the_images_again_is_refused() -> None:
    datamodule = build_datamodule(4)
    for arguments, is_refused in (
        ({"devices": 2, "strategy": "ddp"}, True),
        ({"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}, False),
        ({"devices": 1}, False),
    ):
        datamodule.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **arguments)
        refusal = pytest.raises(UserError, match=r"give Trainer\(use_distributed_sampler=False\)")
        with refusal if is_refused else nullcontext():
            datamodule.setup("fit")
