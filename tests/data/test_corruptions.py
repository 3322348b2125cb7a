"""Damage: drawn by the key, by severity, and never to labels."""

from __future__ import annotations

import numpy as np
import pytest

from segkd.data.base import Sample
from segkd.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from segkd.data.streets import Streets


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Streets("val")[0]


def damage(sample: Sample, name: str, severity: int, key: int = 5) -> np.ndarray:
    batch = Corruption(name, severity)(sample, key)
    assert np.array_equal(batch.target.numpy(), sample.label)
    assert batch.valid.all()
    return batch.images.numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severe_is_farther_from_the_image(sample: Sample, name: str) -> None:
    untouched = sample.image.copy()
    far = []
    for severity in range(1, SEVERITIES + 1):
        damaged = damage(sample, name, severity)
        assert damaged.dtype == np.uint8
        assert damaged.shape == sample.image.shape
        far.append(float(np.square(damaged.astype(float) - sample.image).mean()))
    assert far == sorted(far)
    assert far[0] > 1
    assert far[-1] > 1.4 * far[0]
    assert np.array_equal(sample.image, untouched)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_key_draws_it(sample: Sample, name: str) -> None:
    assert np.array_equal(damage(sample, name, 3), damage(sample, name, 3))
    if name in ("gaussian_noise", "motion_blur", "fog"):
        assert not np.array_equal(damage(sample, name, 3), damage(sample, name, 3, key=6))


def test_noise_is_as_strong_as_it_says() -> None:
    grey = Sample(np.full((100, 100, 3), 128, np.uint8), np.zeros((100, 100), np.uint8))
    assert damage(grey, "gaussian_noise", 1).std() / 255 == pytest.approx(0.08, rel=0.05)
    assert np.abs(damage(grey, "brightness", 2).astype(float).mean() - 128 * 1.2) < 1
