"""The Pareto front of cost and quality."""

from __future__ import annotations

from segkd.utils.pareto import select_pareto_front

FAST, GOOD, SLOWER, WORSE, DOMINATED = (1, 0.5), (3, 0.7), (4, 0.7), (2, 0.4), (1, 0.45)


def test_pareto_front_of_known_points() -> None:
    points = [SLOWER, WORSE, GOOD, DOMINATED, FAST, GOOD]
    assert select_pareto_front(points, lambda point: point) == [FAST, GOOD]
