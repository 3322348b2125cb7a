"""Learning rate schedules in closed form of the progress: no state to save."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """A factor of the base learning rate, from the fraction of steps that are done, 0..1."""

    def __call__(self, progress: float) -> float:
        """Return the factor."""
        ...


class Poly:
    """(1 − progress)^power: the schedule of Liu et al. and of PSPNet; zero after the last step.

    Args:
        power: 0.9 in both.
        warmup: fraction of the steps in which the rate rises linearly to the curve.
    """

    def __init__(self, power: float = 0.9, warmup: float = 0.0) -> None:
        if power < 0:
            raise ValueError(f"power must be 0 or more, not {power}")
        self.power = power
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        """Return the factor."""
        return _compute_warmup(progress, self.warmup) * math.pow(1 - min(progress, 1), self.power)


class Cosine:
    """Half a cosine from one to zero.

    Args:
        warmup: as for `Poly`.
    """

    def __init__(self, warmup: float = 0.0) -> None:
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        """Return the factor."""
        return _compute_warmup(progress, self.warmup) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


class Constant:
    """One at any progress."""

    def __call__(self, progress: float) -> float:  # noqa: ARG002
        """Return 1."""
        return 1.0


def _compute_warmup(progress: float, warmup: float) -> float:
    return 1.0 if progress >= warmup else progress / warmup
