"""Compare methods with their baselines: the numbers that `compare`, `report` and `study` show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t

from segkd.runs.methods import find_baselines
from segkd.runs.run import Run
from segkd.utils.tables import Rows

TITLES = ("method", "seeds", "mIoU", "at equal steps", "at equal time", "steps", "ms per step", "seconds", "teacher seconds")  # fmt: skip
"""Columns of `build_summary_table`."""


class Difference(NamedTuple):
    """The mean of differences paired by seed, and its confidence interval; the interval of one pair is NaN."""

    mean: float
    low: float
    high: float
    pairs: int


class MethodResult(NamedTuple):
    """A method, and its gain in mIoU over the baseline; a gain is None if there is no baseline to compare with."""

    name: str
    runs: Sequence[Run]
    at_equal_steps: Difference | None
    at_equal_time: Difference | None
    """Over the shortest baseline that trained as long as the method and its teacher together."""
    teacher_seconds: float | None
    """None if it is unknown."""
    class_gains: dict[str, float]
    """Class → mean gain in IoU over the pairs at equal steps; empty without pairs."""

    @property
    def is_baseline(self) -> bool:
        """Whether the method trains without distillation."""
        return not self.runs[0].terms

    @property
    def miou(self) -> float:
        """Mean mIoU over the seeds."""
        return fmean(run.miou for run in self.runs)

    @property
    def seconds(self) -> float:
        """Mean training time over the seeds."""
        return fmean(run.seconds for run in self.runs)

    @property
    def seconds_per_step(self) -> float:
        """Seconds per step of the fastest run, which other work on the machine disturbed least."""
        return min(run.seconds / run.steps for run in self.runs)


def compare_methods(
    methods: Mapping[str, Sequence[Run]], confidence: float = 0.95, teacher_seconds: float | None = None
) -> list[MethodResult]:
    """Compare every method with its baseline.

    Args:
        methods: name → scored runs, one for each seed.
        confidence: of the intervals (Student's t), in 0..1.
        teacher_seconds: training time of teachers whose run is not next to their weights.
    """
    return [_compare_method(name, methods, confidence, teacher_seconds) for name in methods]


def _compare_method(
    name: str, methods: Mapping[str, Sequence[Run]], confidence: float, teacher_seconds: float | None
) -> MethodResult:
    runs = methods[name]
    baselines = find_baselines(runs, methods) if runs[0].terms else []
    known = runs[0].teacher_seconds
    cost = teacher_seconds if known is None else known
    total_seconds = math.inf if cost is None else _average_seconds(runs) + cost
    equal_steps = next((baseline for baseline in baselines if baseline[0].steps == runs[0].steps), ())
    longer = (baseline for baseline in baselines if _average_seconds(baseline) >= total_seconds)
    equal_time = min(longer, key=_average_seconds, default=())
    at_equal_steps, at_equal_time = (
        compute_paired_difference([run.miou - other.miou for run, other in _pair_by_seed(runs, baseline)], confidence)
        for baseline in (equal_steps, equal_time)
    )
    return MethodResult(name, runs, at_equal_steps, at_equal_time, cost, _compute_class_gains(runs, equal_steps))


def compute_paired_difference(differences: Sequence[float], confidence: float) -> Difference | None:
    """Return the mean of differences with Student's t interval; None without differences."""
    if not differences:
        return None
    mean = fmean(differences)
    if len(differences) == 1:
        return Difference(mean, math.nan, math.nan, 1)
    quantile = float(t.ppf((1 + confidence) / 2, len(differences) - 1))
    half_width = quantile * stdev(differences) / math.sqrt(len(differences))
    return Difference(mean, mean - half_width, mean + half_width, len(differences))


def _compute_class_gains(runs: Sequence[Run], baseline: Sequence[Run]) -> dict[str, float]:
    gains: dict[str, list[float]] = {}
    for run, other in _pair_by_seed(runs, baseline):
        for name in run.iou.keys() & other.iou.keys():
            gains.setdefault(name, []).append(run.iou[name] - other.iou[name])
    return {name: fmean(gains[name]) for name in runs[0].iou if name in gains}


def _pair_by_seed(runs: Sequence[Run], baseline: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    by_seed = {run.seed: run for run in baseline}
    return ((run, by_seed[run.seed]) for run in runs if run.seed in by_seed)


def _average_seconds(runs: Sequence[Run]) -> float:
    return fmean(run.seconds for run in runs)


def build_summary_table(methods: Sequence[MethodResult]) -> Rows:
    """Return a table of scores in percent, gains and training times; the teacher's time has its own column."""
    return [TITLES, *(_format_row(method) for method in methods)]


def _format_row(method: MethodResult) -> list[str]:
    teacher_seconds = "?" if method.teacher_seconds is None else f"{method.teacher_seconds:.0f}"
    return [
        method.name,
        str(len(method.runs)),
        _format_mean_std([100 * run.miou for run in method.runs]),
        _format_difference(method.at_equal_steps),
        _format_difference(method.at_equal_time),
        str(method.runs[0].steps),
        f"{1e3 * method.seconds_per_step:.0f}",
        f"{method.seconds:.0f}",
        "" if method.is_baseline and method.teacher_seconds is not None else teacher_seconds,
    ]


def build_class_table(methods: Sequence[MethodResult]) -> Rows:
    """Return a table of the baselines' IoU and the others' gains at equal steps, in percent.

    Without a baseline it holds the IoU of all methods.
    """
    has_baseline = any(method.is_baseline for method in methods)
    classes = dict.fromkeys(name for method in methods for run in method.runs for name in run.iou)
    rows = [[name, *(_format_class(method, name, has_baseline) for method in methods)] for name in classes]
    return [["class", *(method.name for method in methods)], *rows]


def _format_class(method: MethodResult, name: str, has_baseline: bool) -> str:
    if has_baseline and not method.is_baseline:
        return _format_signed(method.class_gains[name]) if name in method.class_gains else ""
    values = [run.iou[name] for run in method.runs if name in run.iou]
    return f"{100 * fmean(values):.2f}" if values else "absent"


def _format_mean_std(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _format_difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    interval = "" if math.isnan(difference.low) else f" ({100 * difference.low:.2f} to {100 * difference.high:.2f})"
    return f"{_format_signed(difference.mean)}{interval}"


def _format_signed(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # + 0.0 turns -0.0 into 0.0
