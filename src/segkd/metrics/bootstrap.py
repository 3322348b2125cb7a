"""How sure a score is, when neighbouring frames of a video are nearly the same image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segkd.metrics.confusion import Scores


def resample_counts(sequences: Sequence[str], block: int, bootstrap_samples: int, seed: int) -> Tensor:
    """How often each resample draws each image: bootstrap_samples × N int64.

    Moving blocks (Künsch, *The Jackknife and the Bootstrap for General Stationary Observations*, 1989), drawn in each sequence for
    itself until it has its number of images again; of the last block the first images.

    Args:
        sequences: of each image, the video that it is a frame of; frames are in order.
        block: consecutive frames that are drawn together; a shorter sequence is one block.
    """
    generator = torch.Generator().manual_seed(seed)
    times = torch.zeros(bootstrap_samples, len(sequences), dtype=torch.int64)
    for sequence in dict.fromkeys(sequences):
        frames = torch.tensor([i for i, name in enumerate(sequences) if name == sequence])
        length = min(block, len(frames))
        blocks = -(-len(frames) // length)
        starts = torch.randint(0, len(frames) - length + 1, (bootstrap_samples, blocks, 1), generator=generator)
        drawn = (starts + torch.arange(length)).flatten(1)[:, : len(frames)]
        times.scatter_add_(1, frames[drawn], torch.ones_like(drawn))
    return times


def bootstrap_interval(
    matrices: Tensor,
    num_classes: int,
    sequences: Sequence[str],
    block: int,
    bootstrap_samples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval of the mIoU from the confusion matrices of images, N K K.

    It speaks of other frames of these videos; two or three videos say nothing of other videos.
    """
    weights = resample_counts(sequences, block, bootstrap_samples, seed).double()
    summed = (weights @ matrices.flatten(1).double().cpu()).view(bootstrap_samples, *matrices.shape[1:])
    scores = torch.tensor([Scores.of(matrix, num_classes).miou for matrix in summed], dtype=torch.float64)
    low, high = scores.nanquantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high
