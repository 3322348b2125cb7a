"""Confidence interval of the mIoU of video frames, by a moving block bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segkd.metrics.confusion import Scores


def count_resamples(sequences: Sequence[str], block: int, bootstrap_samples: int, seed: int) -> Tensor:
    """Return how often each bootstrap sample contains each image, bootstrap_samples × N int64.

    Moving blocks (Künsch, *The Jackknife and the Bootstrap for General Stationary Observations*, 1989), since neighboring frames
    of a video are nearly the same image. Each sequence is resampled on its own, to its own number of images; the last block
    is cut.

    Args:
        sequences: the video of each image; frames are in order.
        block: consecutive frames to resample together; a shorter sequence is one block.
        bootstrap_samples: how many samples.
        seed: seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(bootstrap_samples, len(sequences), dtype=torch.int64)
    for sequence in dict.fromkeys(sequences):
        frames = torch.tensor([i for i, name in enumerate(sequences) if name == sequence])
        length = min(block, len(frames))
        num_blocks = -(-len(frames) // length)
        starts = torch.randint(0, len(frames) - length + 1, (bootstrap_samples, num_blocks, 1), generator=generator)
        sampled = (starts + torch.arange(length)).flatten(1)[:, : len(frames)]
        counts.scatter_add_(1, frames[sampled], torch.ones_like(sampled))
    return counts


def compute_bootstrap_interval(
    matrices: Tensor,
    num_classes: int,
    sequences: Sequence[str],
    block: int,
    bootstrap_samples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of the mIoU.

    It holds for other frames of these videos; two or three videos allow no conclusion about other videos.

    Args:
        matrices: the confusion matrix of each image, N K K.
        num_classes: classes over which the mIoU is taken.
        sequences: the video of each image; frames are in order.
        block: consecutive frames to resample together.
        bootstrap_samples: number of samples.
        seed: seed of the random numbers.
        level: probability that the interval covers.
    """
    weights = count_resamples(sequences, block, bootstrap_samples, seed).double()
    summed = (weights @ matrices.flatten(1).double().cpu()).view(bootstrap_samples, *matrices.shape[1:])
    mious = [Scores.from_confusion_matrix(matrix, num_classes).miou for matrix in summed]
    quantiles = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.tensor(mious, dtype=torch.float64).nanquantile(quantiles).tolist()
    return low, high
