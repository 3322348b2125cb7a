"""One LightningDataModule for every dataset."""

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
from segkd.data.unlabeled import UnlabeledImages
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch


class SampleDataset(Dataset[Batch]):
    """The samples of a dataset, and unlabeled images if given, as tensors; augmented if an augmentation is given."""

    def __init__(
        self,
        source: SegmentationDataset,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        unlabeled: UnlabeledImages | None = None,
    ) -> None:
        self.source = source
        self.augmentation = augmentation
        self.seed = seed
        self.unlabeled = unlabeled

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: SampleIndex) -> Batch:
        sample = self._load(index)
        if index == EMPTY:
            return to_batch(sample.image, np.full_like(sample.label, IGNORE_INDEX))
        seed = sample_seed(self.seed, index.epoch, index.image, index.labeled)
        return to_batch(*sample, seed) if self.augmentation is None else self.augmentation(sample, seed)

    def _load(self, index: SampleIndex) -> Sample:
        if index.labeled:
            return self.source[index.image]
        assert self.unlabeled is not None
        return self.unlabeled[index.image]


class SegmentationDataModule(pl.LightningDataModule):
    """Training and validation batches of any dataset.

    Its samplers share the images among processes, so a Trainer of several needs `use_distributed_sampler=False`.

    Args:
        train: Training split.
        val: Validation split.
        augmentation: Augmentation of training samples; a `DeviceAugmentation` keeps the training split on the device.
        batch_size: Labeled images per optimizer step, over all processes.
        workers: Loading processes per training process; 0 loads in the training process itself.
        seed: Seed of order and augmentation.
        unlabeled: Images for distillation without labels.
        unlabeled_per_batch: Number of unlabeled images in each global batch.

    Raises:
        UserError: The training split has fewer images than a batch.
    """

    def __init__(
        self,
        train: SegmentationDataset,
        val: SegmentationDataset,
        augmentation: Augmentation | DeviceAugmentation,
        batch_size: int = 8,
        workers: int = 0,
        seed: int = 0,
        unlabeled: UnlabeledImages | None = None,
        unlabeled_per_batch: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.unlabeled_per_batch = unlabeled_per_batch
        self.start = (0, 0)
        """Epoch and number of its batches that are already done, to resume a run."""
        self.device_augmentation = augmentation if isinstance(augmentation, DeviceAugmentation) else None
        self.train = SampleDataset(
            train, augmentation if isinstance(augmentation, Augmentation) else None, seed, unlabeled
        )
        self.val = SampleDataset(val)
        if len(self.train) < batch_size:
            raise UserError(
                f"data.batch_size={batch_size} exceeds the {len(self.train)} images of {train.split}; lower it"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, the same on any number of processes."""
        return len(self.train) // self.batch_size

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Check that the trainer leaves the samplers alone, which share the images among the processes themselves.

        Raises:
            UserError: it would replace them, and so share the images twice.
        """
        trainer = self.trainer
        # The argument has no public attribute.
        if trainer is not None and trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise UserError(
                "SegmentationDataModule shares the images among the processes itself; give Trainer(use_distributed_sampler=False)"
            )

    def train_dataloader(self) -> DataLoader[Batch] | DeviceLoader:
        """Return the loader of this process's share of the training batches.

        Raises:
            UserError: The processes cannot share a batch evenly.
        """
        rank, world_size = self._get_rank_and_world_size()
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} counts all {world_size} processes and must be divisible by {world_size}"
            )
        if self.unlabeled_per_batch % world_size:
            raise UserError(
                f"{self.unlabeled_per_batch} unlabeled images per batch cannot be shared by {world_size} processes; "
                f"change data.unlabeled_ratio so that they can"
            )
        images = self.train.unlabeled
        unlabeled = (0, 0) if images is None else (len(images), self.unlabeled_per_batch)
        sampler = DistributedShuffleSampler(
            len(self.train), self.batch_size, self.seed, rank, world_size, unlabeled, self.start
        )
        share = (self.batch_size + unlabeled[1]) // world_size
        if self.device_augmentation is None:
            return build_loader(self.train, sampler, share, self.workers)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return DeviceLoader(self.train.source, self.device_augmentation, sampler, share, self.seed, device)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of this process's share of the validation images, one per batch."""
        sampler = DistributedEvalSampler(len(self.val), *self._get_rank_and_world_size())
        return build_loader(self.val, sampler, 1, self.workers)

    def _get_rank_and_world_size(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def build_loader(
    samples: SampleDataset, sampler: Sampler[SampleIndex], batch_size: int = 1, workers: int = 0
) -> DataLoader[Batch]:
    """Build a DataLoader of samples in the order of a sampler."""
    return DataLoader(
        samples,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        worker_init_fn=_init_worker if workers else None,
        persistent_workers=workers > 0,
        # Without a generator of its own, each pass would take a number from torch's global one, which networks use.
        generator=torch.Generator(),
    )


def _init_worker(_: int) -> None:
    # OpenCV would start as many threads in each worker as the machine has cores.
    cv2.setNumThreads(0)
    # A scheduler that stops a job signals all its processes, but the parent still finishes its step and needs the batch.
    # A second SIGTERM comes from the parent, for a worker that has not ended when asked to.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
