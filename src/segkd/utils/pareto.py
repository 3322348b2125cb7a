"""The Pareto front of points of cost and quality."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def select_pareto_front(points: Iterable[T], get_position: Callable[[T], tuple[float, float]]) -> list[T]:
    """Return the points that no other one beats or equals in both cost and quality, the cheapest first.

    Args:
        points: points of any type.
        get_position: returns the cost of a point, where less is better, and its quality, where more is better.
    """
    front: list[T] = []
    for point in sorted(points, key=lambda p: (get_position(p)[0], -get_position(p)[1])):
        if not front or get_position(point)[1] > get_position(front[-1])[1]:
            front.append(point)
    return front
