"""One LightningDataModule for every data set, and the order in which it serves: a pure function of (seed, epoch)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segkd.data.base import Sample, SegmentationDataset
from segkd.data.images import UnlabelledImages
from segkd.data.transforms import Augmentation, sample_key, to_batch
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch


class Draw(NamedTuple):
    """Which image to serve, and in which epoch."""

    image: int
    epoch: int
    labelled: bool = True


_UNLABELLED = 1  # tells the order of unlabelled images from that of the labelled
_NOTHING = Draw(0, -1)  # an image whose labels are all ignored, for a process that has none of its own


class Samples(Dataset[Batch]):
    """The samples of a data set as tensors, augmented where an augmentation is given; and unlabelled images, if there are."""

    def __init__(
        self,
        source: SegmentationDataset,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        unlabelled: UnlabelledImages | None = None,
    ) -> None:
        self.source = source
        self.augmentation = augmentation
        self.seed = seed
        self.unlabelled = unlabelled

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> Batch:
        sample = self._sample(draw)
        if draw == _NOTHING:
            return to_batch(sample.image, np.full_like(sample.label, IGNORE_INDEX))
        key = sample_key(self.seed, draw.epoch, draw.image, draw.labelled)
        return to_batch(*sample, key) if self.augmentation is None else self.augmentation(sample, key)

    def _sample(self, draw: Draw) -> Sample:
        if draw.labelled:
            return self.source[draw.image]
        assert self.unlabelled is not None
        return self.unlabelled[draw.image]


class ShuffledShard(Sampler[Draw]):
    """This process's share of each global batch of a shuffled epoch.

    The order depends on (seed, epoch) alone; the last, short batch is left out. Consecutive draws of each process, its share
    of the labelled images and then of the unlabelled, make up one global batch, so any number of processes takes the same steps.

    Args:
        length: labelled images.
        batch_size: of them in a global batch.
        seed: of the order.
        rank: which process this is.
        world: how many there are; both batch sizes are divisible by it.
        unlabelled: how many images without labels there are, and how many of them go into a global batch. They are shuffled for
            themselves, and all are seen before one is seen again, in whichever epoch that is.
        start: an epoch, and how many of its batches have been seen: where a resumed run goes on. The length stays an epoch's.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        unlabelled: tuple[int, int] = (0, 0),
        start: tuple[int, int] = (0, 0),
    ) -> None:
        self.length, self.batch_size, self.seed, self.rank, self.world = length, batch_size, seed, rank, world
        self.unlabelled = unlabelled
        self.start = start
        self.epoch = start[0]  # workers fetch their first batches before Lightning has said which epoch it is

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size * ((self.batch_size + self.unlabelled[1]) // self.world)

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        share = self.batch_size // self.world
        steps = self.length // self.batch_size
        first = self.start[1] if self.epoch == self.start[0] else 0
        for batch in range(first, steps):
            start = batch * self.batch_size + self.rank * share
            for index in order[start : start + share]:
                yield Draw(int(index), self.epoch)
            yield from self._unlabelled(self.epoch * steps + batch)

    def _unlabelled(self, step: int) -> Iterator[Draw]:
        images, per_batch = self.unlabelled
        share = per_batch // self.world
        start = step * per_batch + self.rank * share
        orders: dict[int, np.ndarray] = {}
        for place in range(start, start + share):
            turn, within = divmod(place, images)
            if turn not in orders:
                orders[turn] = np.random.default_rng([self.seed, turn, _UNLABELLED]).permutation(images)
            # Seen again in the same epoch, an image is augmented in another way.
            yield Draw(int(orders[turn][within]), turn, labelled=False)


class ExactShard(Sampler[Draw]):
    """This process's share of an evaluation: every image once in all, none twice.

    A process without an image gets one whose labels are all ignored, since each must take part in the sum.
    """

    def __init__(self, length: int, rank: int = 0, world: int = 1) -> None:
        self.draws = [Draw(i, 0) for i in range(rank, length, world)] or [_NOTHING]

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[Draw]:
        return iter(self.draws)


class SegmentationData(pl.LightningDataModule):
    """Training and validation batches of any data set.

    Args:
        train: what is trained on.
        val: what is validated on.
        augmentation: for training samples.
        batch_size: images per optimiser step, over all processes together.
        workers: loading processes of each process; 0 loads in the training process itself.
        seed: of order and augmentation.
        unlabelled: images for distillation alone.
        unlabelled_per_batch: how many of them join each batch.
    """

    def __init__(
        self,
        train: SegmentationDataset,
        val: SegmentationDataset,
        augmentation: Augmentation,
        batch_size: int = 8,
        workers: int = 0,
        seed: int = 0,
        unlabelled: UnlabelledImages | None = None,
        unlabelled_per_batch: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.unlabelled_per_batch = unlabelled_per_batch
        self.start = (0, 0)
        """An epoch, and how many of its training batches have been seen."""
        self.train = Samples(train, augmentation, seed, unlabelled)
        self.val = Samples(val)
        if len(self.train) < batch_size:
            raise UserError(
                f"data.batch_size={batch_size} exceeds the {len(self.train)} images of {train.split}; lower it"
            )

    def steps_per_epoch(self) -> int:
        """Optimiser steps, the same on any number of processes."""
        return len(self.train) // self.batch_size

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, world = self._place()
        if self.batch_size % world:
            raise UserError(
                f"data.batch_size={self.batch_size} counts all {world} processes and must be divisible by {world}"
            )
        if self.unlabelled_per_batch % world:
            raise UserError(
                f"{self.unlabelled_per_batch} unlabelled images per batch cannot be shared by {world} processes; "
                f"change data.unlabelled_ratio so that they can"
            )
        source = self.train.unlabelled
        unlabelled = (0, 0) if source is None else (len(source), self.unlabelled_per_batch)
        sampler = ShuffledShard(len(self.train), self.batch_size, self.seed, rank, world, unlabelled, self.start)
        return self._loader(self.train, sampler, (self.batch_size + unlabelled[1]) // world)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.val, ExactShard(len(self.val), *self._place()), 1)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _loader(self, samples: Samples, sampler: Sampler[Draw], batch_size: int) -> DataLoader[Batch]:
        return loader(samples, sampler, batch_size, self.workers)


def loader(samples: Samples, sampler: Sampler[Draw], batch_size: int = 1, workers: int = 0) -> DataLoader[Batch]:
    """A DataLoader of samples in the order of a sampler."""
    return DataLoader(
        samples,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # or each pass would draw a number from the one that networks draw from
    )


def _start_worker(_: int) -> None:
    # OpenCV would start as many threads in each worker as the machine has cores.
    cv2.setNumThreads(0)
    # Whoever stops a job signals all its processes, and a batch is owed to the step that the parent still makes. The second
    # time is the parent's, of a worker that did not end when told to.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
