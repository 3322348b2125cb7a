"""One LightningDataModule for every data set."""

from __future__ import annotations

import signal

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segkd.data.base import Sample, SegmentationDataset
from segkd.data.device_augmentation import DeviceAugmentation, DeviceLoader
from segkd.data.samplers import EMPTY, DistributedEvalSampler, DistributedShuffleSampler, SampleIndex
from segkd.data.transforms import Augmentation, sample_seed, to_batch
from segkd.data.unlabelled import UnlabelledImages
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch


class SampleDataset(Dataset[Batch]):
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

    def __getitem__(self, draw: SampleIndex) -> Batch:
        sample = self._sample(draw)
        if draw == EMPTY:
            return to_batch(sample.image, np.full_like(sample.label, IGNORE_INDEX))
        key = sample_seed(self.seed, draw.epoch, draw.image, draw.labelled)
        return to_batch(*sample, key) if self.augmentation is None else self.augmentation(sample, key)

    def _sample(self, draw: SampleIndex) -> Sample:
        if draw.labelled:
            return self.source[draw.image]
        assert self.unlabelled is not None
        return self.unlabelled[draw.image]


class SegmentationDataModule(pl.LightningDataModule):
    """Training and validation batches of any data set.

    Args:
        train: what is trained on.
        val: what is validated on.
        augmentation: for training samples; one on the device keeps the training split there.
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
        augmentation: Augmentation | DeviceAugmentation,
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
        self.on_device = augmentation if isinstance(augmentation, DeviceAugmentation) else None
        self.train = SampleDataset(
            train, augmentation if isinstance(augmentation, Augmentation) else None, seed, unlabelled
        )
        self.val = SampleDataset(val)
        if len(self.train) < batch_size:
            raise UserError(
                f"data.batch_size={batch_size} exceeds the {len(self.train)} images of {train.split}; lower it"
            )

    def steps_per_epoch(self) -> int:
        """Optimiser steps, the same on any number of processes."""
        return len(self.train) // self.batch_size

    def train_dataloader(self) -> DataLoader[Batch] | DeviceLoader:
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
        sampler = DistributedShuffleSampler(
            len(self.train), self.batch_size, self.seed, rank, world, unlabelled, self.start
        )
        share = (self.batch_size + unlabelled[1]) // world
        if self.on_device is None:
            return self._loader(self.train, sampler, share)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return DeviceLoader(self.train.source, self.on_device, sampler, share, self.seed, device)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.val, DistributedEvalSampler(len(self.val), *self._place()), 1)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _loader(self, samples: SampleDataset, sampler: Sampler[SampleIndex], batch_size: int) -> DataLoader[Batch]:
        return build_loader(samples, sampler, batch_size, self.workers)


def build_loader(
    samples: SampleDataset, sampler: Sampler[SampleIndex], batch_size: int = 1, workers: int = 0
) -> DataLoader[Batch]:
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
