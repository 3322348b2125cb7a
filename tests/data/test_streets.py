"""Streets: scenes follow from seed and number, no scene is in two splits, and every class occurs."""

from __future__ import annotations

import numpy as np
import pytest

from segkd.data.streets import Streets
from segkd.types import IGNORE_INDEX


def render_scenes(split: str, seed: int = 0, count: int = 24) -> list[bytes]:
    data = Streets(split, images=count, scene_seed=seed)
    return [data[i].image.tobytes() + data[i].label.tobytes() for i in range(count)]


def test_scene_follows_from_seed_and_number() -> None:
    """Whether it is rendered alone or after others."""
    alone = Streets("train", images=24)[17]
    scenes = render_scenes("train")
    assert scenes[17] == alone.image.tobytes() + alone.label.tobytes()
    assert render_scenes("train") == scenes


def test_no_scene_occurs_twice() -> None:
    scenes = [scene for split in Streets.splits for seed in (0, 1) for scene in render_scenes(split, seed)]
    assert len(set(scenes)) == len(scenes) == 144


def test_number_of_scenes() -> None:
    assert [len(Streets(split)) for split in Streets.splits] == [256, 64, 64]
    assert [len(Streets(split, images=1000)) for split in Streets.splits] == [1000, 250, 250]
    with pytest.raises(IndexError):
        Streets("val")[64]


def test_every_class_and_void_occur() -> None:
    data = Streets("train")
    labels = np.stack([data[i].label for i in range(64)])
    assert set(np.unique(labels)) == {*range(11), IGNORE_INDEX}
    shares = np.bincount(labels.ravel(), minlength=256)[:11] / labels.size
    assert shares.min() > 0.001  # a rarer class could not be learned
    assert shares.max() < 0.5


def test_statistics_are_those_of_the_pixels() -> None:
    data = Streets("train")
    pixels = np.concatenate([data[i].image.reshape(-1, 3) for i in range(len(data))]).astype(np.float64)
    np.testing.assert_allclose(pixels.mean(0), Streets.mean, atol=1)
    np.testing.assert_allclose(pixels.std(0), Streets.std, atol=1)
