"""Evenly spaced indices."""

from __future__ import annotations

import pytest

from segkd.utils.indices import space_indices


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(10, 4, [0, 2, 5, 7]), (3, 4, [0, 1, 2]), (3, 3, [0, 1, 2]), (100, 1, [0]), (5, 0, []), (0, 2, [])],
)
def test_indices_are_evenly_spaced(length: int, count: int, expected: list[int]) -> None:
    assert space_indices(length, count) == expected
