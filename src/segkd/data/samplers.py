"""The order in which samples are served: a pure function of (seed, epoch), shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class SampleIndex(NamedTuple):
    """Which image to serve, and in which epoch."""

    image: int
    epoch: int
    labelled: bool = True


_UNLABELLED = 1  # tells the order of unlabelled images from that of the labelled
EMPTY = SampleIndex(0, -1)  # an image whose labels are all ignored, for a process that has none of its own


class DistributedShuffleSampler(Sampler[SampleIndex]):
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

    def __iter__(self) -> Iterator[SampleIndex]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        share = self.batch_size // self.world
        steps = self.length // self.batch_size
        first = self.start[1] if self.epoch == self.start[0] else 0
        for batch in range(first, steps):
            start = batch * self.batch_size + self.rank * share
            for index in order[start : start + share]:
                yield SampleIndex(int(index), self.epoch)
            yield from self._unlabelled(self.epoch * steps + batch)

    def _unlabelled(self, step: int) -> Iterator[SampleIndex]:
        images, per_batch = self.unlabelled
        share = per_batch // self.world
        start = step * per_batch + self.rank * share
        orders: dict[int, np.ndarray] = {}
        for place in range(start, start + share):
            turn, within = divmod(place, images)
            if turn not in orders:
                orders[turn] = np.random.default_rng([self.seed, turn, _UNLABELLED]).permutation(images)
            # Seen again in the same epoch, an image is augmented in another way.
            yield SampleIndex(int(orders[turn][within]), turn, labelled=False)


class DistributedEvalSampler(Sampler[SampleIndex]):
    """This process's share of an evaluation: every image once in all, none twice.

    A process without an image gets one whose labels are all ignored, since each must take part in the sum.
    """

    def __init__(self, length: int, rank: int = 0, world: int = 1) -> None:
        self.draws = [SampleIndex(i, 0) for i in range(rank, length, world)] or [EMPTY]

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[SampleIndex]:
        return iter(self.draws)
