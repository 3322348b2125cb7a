"""Bootstrap of blocks of frames: the samples, and the width of the interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.metrics import Scores
from segkd.metrics.bootstrap import compute_bootstrap_interval, count_resamples

VIDEOS = ["a"] * 23 + ["b"] * 7 + ["c"]


def test_samples_are_blocks_of_each_video() -> None:
    counts = count_resamples(VIDEOS, block=10, bootstrap_samples=200, seed=3)
    for video in "abc":
        own = counts[:, [name == video for name in VIDEOS]]
        assert (own.sum(1) == VIDEOS.count(video)).all(), "each video keeps its number of frames"
    assert (counts[:, 23:] == 1).all(), "a video of one block is taken whole"
    assert counts[:, :23].max() == 3
    assert torch.equal(counts, count_resamples(VIDEOS, 10, 200, 3))
    assert not torch.equal(counts, count_resamples(VIDEOS, 10, 200, 4))
    # Where a frame is sampled and its successor is not, a block ends; there are three blocks.
    ends = ((counts[:, 1:23] - counts[:, :22]).clamp(max=0).abs()).sum(1) + counts[:, 22]
    assert (ends <= 3).all()
    single = count_resamples(VIDEOS, 1, 200, 3)[:, :23]
    assert ((single[:, 1:] - single[:, :-1]).clamp(max=0).abs().sum(1) > 3).any()


def make_matrices(run: int, count: int = 240) -> Tensor:
    """Make confusion matrices of a video that changes every `run` frames only."""
    rng = np.random.default_rng(0)
    hits = rng.integers(200, 900, -(-count // run)).repeat(run)[:count]
    return torch.tensor([[[h, 1000 - h], [1000 - h, h]] for h in hits.tolist()])


def test_interval_of_independent_frames() -> None:
    """With blocks of one frame the width equals that of an ordinary bootstrap in NumPy."""
    matrices = make_matrices(run=1)
    low, high = compute_bootstrap_interval(matrices, 2, ["a"] * 240, block=1, bootstrap_samples=2000, seed=0)
    rng = np.random.default_rng(1)
    sampled = matrices.numpy()[rng.integers(0, 240, (2000, 240))].sum(1).astype(float)
    iou = sampled[:, 0, 0] / (sampled[:, 0].sum(1) + sampled[:, 1, 0])
    width = np.diff(np.quantile(iou, (0.025, 0.975)))[0]
    assert high - low == pytest.approx(width, rel=0.1)
    assert low < Scores.from_confusion_matrix(matrices.sum(0), 2).miou < high


def test_correlated_frames_need_blocks() -> None:
    """Ten frames alike are one observation: the true interval is √10 counts as wide as it looks frame by frame."""
    matrices, video = make_matrices(run=10), ["a"] * 240
    narrow, wide = (
        high - low
        for low, high in (compute_bootstrap_interval(matrices, 2, video, block, 2000, 0) for block in (1, 10))
    )
    assert 2.3 < wide / narrow < 3.6
    assert compute_bootstrap_interval(matrices, 2, video, 240, 10, 0) == pytest.approx(
        [Scores.from_confusion_matrix(matrices.sum(0), 2).miou] * 2
    )
