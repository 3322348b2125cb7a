"""Corruptions: seeded, ordered by severity, and never applied to labels."""

from __future__ import annotations

import numpy as np
import pytest

from segkd.data.base import Sample
from segkd.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from segkd.data.streets import Streets


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Streets("val")[0]


def corrupt(sample: Sample, name: str, severity: int, seed: int = 5) -> np.ndarray:
    batch = Corruption(name, severity)(sample, seed)
    assert np.array_equal(batch.target.numpy(), sample.label)
    assert batch.valid.all()
    return batch.images.numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_higher_severity_changes_the_image_more(sample: Sample, name: str) -> None:
    original = sample.image.copy()
    errors = []
    for severity in range(1, SEVERITIES + 1):
        corrupted = corrupt(sample, name, severity)
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == sample.image.shape
        errors.append(float(np.square(corrupted.astype(float) - sample.image).mean()))
    assert errors == sorted(errors)
    assert errors[0] > 1
    assert errors[-1] > 1.4 * errors[0]
    assert np.array_equal(sample.image, original)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_randomness_follows_from_the_seed(sample: Sample, name: str) -> None:
    assert np.array_equal(corrupt(sample, name, 3), corrupt(sample, name, 3))
    if name in ("gaussian_noise", "motion_blur", "fog"):
        assert not np.array_equal(corrupt(sample, name, 3), corrupt(sample, name, 3, seed=6))


def test_strength_is_as_documented() -> None:
    gray = Sample(np.full((100, 100, 3), 128, np.uint8), np.zeros((100, 100), np.uint8))
    assert corrupt(gray, "gaussian_noise", 1).std() / 255 == pytest.approx(0.08, rel=0.05)
    assert np.abs(corrupt(gray, "brightness", 2).astype(float).mean() - 128 * 1.2) < 1
