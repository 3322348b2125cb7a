"""Streets: the same scene for the same number, no scene in two splits, every class in them."""

from __future__ import annotations

import numpy as np
import pytest

from segkd.data.streets import Streets
from segkd.types import IGNORE_INDEX


def scenes(split: str, seed: int = 0, count: int = 24) -> list[bytes]:
    data = Streets(split, images=count, scene_seed=seed)
    return [data[i].image.tobytes() + data[i].label.tobytes() for i in range(count)]


def test_a_scene_follows_from_seed_and_number() -> None:
    """Also when it is drawn after others, or alone."""
    alone = Streets("train", images=24)[17]
    assert scenes("train")[17] == alone.image.tobytes() + alone.label.tobytes()
    assert scenes("train") == scenes("train")


def test_no_scene_twice() -> None:
    drawn = [scene for split in Streets.splits for seed in (0, 1) for scene in scenes(split, seed)]
    assert len(set(drawn)) == len(drawn) == 144


def test_lengths() -> None:
    assert [len(Streets(split)) for split in Streets.splits] == [256, 64, 64]
    assert [len(Streets(split, images=1000)) for split in Streets.splits] == [1000, 250, 250]
    with pytest.raises(IndexError):
        Streets("val")[64]


def test_every_class_and_void() -> None:
    data = Streets("train")
    labels = np.stack([data[i].label for i in range(64)])
    assert set(np.unique(labels)) == {*range(11), IGNORE_INDEX}
    shares = np.bincount(labels.ravel(), minlength=256)[:11] / labels.size
    assert shares.min() > 0.001  # a class that is hardly there cannot be learnt
    assert shares.max() < 0.5


def test_statistics_are_those_of_the_pixels() -> None:
    data = Streets("train")
    pixels = np.concatenate([data[i].image.reshape(-1, 3) for i in range(len(data))]).astype(np.float64)
    np.testing.assert_allclose(pixels.mean(0), Streets.mean, atol=1)
    np.testing.assert_allclose(pixels.std(0), Streets.std, atol=1)
