"""Learning rates as a closed form of progress: nothing to save, nothing to drift."""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """A factor of the base learning rate from the share of steps that are done, 0..1."""

    def __call__(self, progress: float) -> float: ...


class Poly:
    """(1 − progress)^power: the schedule of Liu et al. and of PSPNet; zero after the last step.

    Args:
        power: 0.9 in both.
        warmup: share of the steps in which the rate climbs linearly to the curve.
    """

    def __init__(self, power: float = 0.9, warmup: float = 0.0) -> None:
        if power < 0:
            raise ValueError(f"power must not be negative, not {power}")
        self.power = power
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        return _warmup(progress, self.warmup) * math.pow(1 - min(progress, 1), self.power)


class Cosine:
    """Half a cosine from one to zero.

    Args:
        warmup: as for `Poly`.
    """

    def __init__(self, warmup: float = 0.0) -> None:
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        return _warmup(progress, self.warmup) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


class Constant:
    """One, whatever the progress."""

    def __call__(self, progress: float) -> float:  # noqa: ARG002
        return 1.0


def _warmup(progress: float, warmup: float) -> float:
    return 1.0 if progress >= warmup else progress / warmup
