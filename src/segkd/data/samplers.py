"""Order of samples as a function of (seed, epoch), divided among processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class SampleIndex(NamedTuple):
    """An image and the epoch in which it is loaded."""

    image: int
    epoch: int
    labeled: bool = True


_UNLABELED = 1  # seeds the order of unlabeled images apart from that of labeled ones
EMPTY = SampleIndex(0, -1)  # an image whose labels are all ignored, for a process without an image


class DistributedShuffleSampler(Sampler[SampleIndex]):
    """This process's share of each global batch of a shuffled epoch.

    The order depends on (seed, epoch) alone; the last, incomplete batch is dropped. For each global batch a process yields its
    share of the labeled images, then its share of the unlabeled ones. So the steps are the same on any number of processes.

    Args:
        length: Number of labeled images.
        batch_size: Labeled images per global batch.
        seed: Seed of the order.
        rank: Index of this process.
        world_size: Number of processes; it divides both batch sizes.
        unlabeled: Number of unlabeled images, and how many of them each global batch has. They have an order of their own,
            and each is used once before any is used again, across epochs.
        start: Epoch and number of its batches that are already done, to resume a run. `len` stays that of a whole epoch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        unlabeled: tuple[int, int] = (0, 0),
        start: tuple[int, int] = (0, 0),
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.unlabeled = unlabeled
        self.start = start
        self.epoch = start[0]  # workers load their first batches before Lightning calls `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size * ((self.batch_size + self.unlabeled[1]) // self.world_size)

    def __iter__(self) -> Iterator[SampleIndex]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        share = self.batch_size // self.world_size
        steps = self.length // self.batch_size
        first = self.start[1] if self.epoch == self.start[0] else 0
        for batch in range(first, steps):
            start = batch * self.batch_size + self.rank * share
            for image in order[start : start + share]:
                yield SampleIndex(int(image), self.epoch)
            yield from self._iterate_unlabeled(self.epoch * steps + batch)

    def _iterate_unlabeled(self, step: int) -> Iterator[SampleIndex]:
        num_images, per_batch = self.unlabeled
        share = per_batch // self.world_size
        start = step * per_batch + self.rank * share
        orders: dict[int, np.ndarray] = {}
        for position in range(start, start + share):
            cycle, offset = divmod(position, num_images)
            if cycle not in orders:
                orders[cycle] = np.random.default_rng([self.seed, cycle, _UNLABELED]).permutation(num_images)
            # The cycle stands in for the epoch: an image that repeats within an epoch is augmented in another way.
            yield SampleIndex(int(orders[cycle][offset]), cycle, labeled=False)


class DistributedEvalSampler(Sampler[SampleIndex]):
    """This process's share of an evaluation: each image on exactly one process.

    A process without an image gets `EMPTY`, since every process must take part in the reduction.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = [SampleIndex(i, 0) for i in range(rank, length, world_size)] or [EMPTY]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[SampleIndex]:
        return iter(self.indices)
