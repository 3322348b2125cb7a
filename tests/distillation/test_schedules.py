"""Schedules against their formulas."""

from __future__ import annotations

from math import cos, pi

import pytest

from segkd.distillation.schedules import Constant, Cosine, Poly

PROGRESS = [i / 40 for i in range(41)]


def test_poly_equals_its_formula() -> None:
    assert [Poly()(p) for p in PROGRESS] == pytest.approx([(1 - p) ** 0.9 for p in PROGRESS])
    assert Poly(power=2)(0.5) == 0.25


def test_cosine_equals_its_formula() -> None:
    assert [Cosine()(p) for p in PROGRESS] == pytest.approx([(1 + cos(pi * p)) / 2 for p in PROGRESS], abs=1e-12)


@pytest.mark.parametrize("schedule", [Poly(), Cosine(), Poly(warmup=0.1), Cosine(warmup=0.1)])
def test_schedule_ends_at_zero_and_stays_there(schedule: Poly | Cosine) -> None:
    assert schedule(1) == schedule(1 + 1e-9) == schedule(2) == 0
    assert max(schedule(p) for p in PROGRESS) <= 1


@pytest.mark.parametrize("kind", [Poly, Cosine])
def test_warmup_rises_to_the_curve(kind: type[Poly | Cosine]) -> None:
    warm, plain = kind(warmup=0.2), kind()
    assert warm(0) == 0
    assert warm(0.1) == pytest.approx(0.5 * plain(0.1))
    assert [warm(p) for p in PROGRESS if p >= 0.2] == [plain(p) for p in PROGRESS if p >= 0.2]


def test_constant_is_one() -> None:
    assert {Constant()(p) for p in PROGRESS} == {1.0}
