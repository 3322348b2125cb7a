"""What methods gain over the student alone: figures, which `compare` and `report` show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t

from segkd.runs import Run, baselines


class Difference(NamedTuple):
    """The mean of differences paired by seed, and the ends of its interval; NaN where there is one pair."""

    mean: float
    low: float
    high: float
    pairs: int


class Compared(NamedTuple):
    """A method, and what it gains over the student alone in mIoU: None where there is none to set it against."""

    name: str
    runs: Sequence[Run]
    at_equal_steps: Difference | None
    at_equal_time: Difference | None
    """Over the shortest training of the student alone that took as long as the method and its teacher together."""
    teacher_seconds: float | None
    """None: not known."""
    class_gains: dict[str, float]
    """By class, mean over the pairs at equal steps; empty without one."""

    @property
    def seconds(self) -> float:
        return fmean(run.seconds for run in self.runs)

    @property
    def seconds_per_step(self) -> float:
        """Of the quickest run, which other work on the machine disturbed least."""
        return min(run.seconds / run.steps for run in self.runs)


def compared(
    methods: Mapping[str, Sequence[Run]], confidence: float = 0.95, teacher_seconds: float | None = None
) -> list[Compared]:
    """Every method against the student alone.

    Args:
        methods: name → runs with scores, one for each seed.
        confidence: of the intervals (Student's t), 0..1.
        teacher_seconds: what a teacher cost whose run does not lie beside its weights.
    """
    return [_against_alone(name, runs, methods, confidence, teacher_seconds) for name, runs in methods.items()]


def _against_alone(
    name: str,
    runs: Sequence[Run],
    methods: Mapping[str, Sequence[Run]],
    confidence: float,
    teacher_seconds: float | None,
) -> Compared:
    others = baselines(runs, methods) if runs[0].terms else []
    known = runs[0].teacher_seconds()
    cost = teacher_seconds if known is None else known
    time = math.inf if cost is None else _mean_seconds(runs) + cost
    equal_steps = next((other for other in others if other[0].steps == runs[0].steps), ())
    equal_time = min((other for other in others if _mean_seconds(other) >= time), key=_mean_seconds, default=())
    steps, seconds = (
        paired([ours.miou - theirs.miou for ours, theirs in _pairs(runs, other)], confidence)
        for other in (equal_steps, equal_time)
    )
    return Compared(name, runs, steps, seconds, cost, _class_gains(runs, equal_steps))


def paired(differences: Sequence[float], confidence: float) -> Difference | None:
    """The mean of differences with Student's interval; None of none."""
    if not differences:
        return None
    mean = fmean(differences)
    if len(differences) == 1:
        return Difference(mean, math.nan, math.nan, 1)
    quantile = float(t.ppf((1 + confidence) / 2, len(differences) - 1))
    half = quantile * stdev(differences) / math.sqrt(len(differences))
    return Difference(mean, mean - half, mean + half, len(differences))


def _class_gains(runs: Sequence[Run], others: Sequence[Run]) -> dict[str, float]:
    gains: dict[str, list[float]] = {}
    for ours, theirs in _pairs(runs, others):
        for name in ours.iou.keys() & theirs.iou.keys():
            gains.setdefault(name, []).append(ours.iou[name] - theirs.iou[name])
    return {name: fmean(gains[name]) for name in runs[0].iou if name in gains}


def _pairs(runs: Sequence[Run], others: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    theirs = {run.seed: run for run in others}
    return ((run, theirs[run.seed]) for run in runs if run.seed in theirs)


def _mean_seconds(runs: Sequence[Run]) -> float:
    return fmean(run.seconds for run in runs)
