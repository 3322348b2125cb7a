"""Indices of a sequence."""

from __future__ import annotations


def space_indices(length: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices of a sequence, the first among them; all of them if it is shorter."""
    count = min(count, length)
    return [i * length // count for i in range(count)]
