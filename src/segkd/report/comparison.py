"""What methods gain over the student alone: what `compare` and `report` show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t

from segkd.errors import UserError
from segkd.runs.methods import find_baselines, group_by_method
from segkd.runs.run import Run, find_runs
from segkd.utils.tables import Rows


class Difference(NamedTuple):
    """The mean of differences paired by seed, and the ends of its interval; NaN where there is one pair."""

    mean: float
    low: float
    high: float
    pairs: int


class MethodResult(NamedTuple):
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


def load_comparable_runs(patterns: Sequence[str]) -> tuple[list[Run], list[str]]:
    """The runs in the folders that match, all scored on the same; and a sentence on each folder that is left out.

    Raises:
        UserError: there is none, or they were scored on different data, splits or protocols, or twice with one seed.
    """
    runs, strangers = find_runs(patterns)
    left_out = [f"{folder} holds no run" for folder in strangers]
    left_out += [
        f"{run.directory} {'was never scored' if run.summary else 'did not finish'}"
        for run in runs
        if run.score is None
    ]
    scored = {run.score.measured_on: run for run in runs if run.score is not None}
    if not scored:
        raise UserError("none of these runs has finished; continue one with resume=DIR/last.ckpt")
    if len(scored) > 1:
        shared = set.intersection(*(set(where.split("; ")) for where in scored))
        told = {
            run.directory: [part for part in where.split("; ") if part not in shared] for where, run in scored.items()
        }
        differ = "; ".join(f"{run} on {', '.join(parts) or 'nothing more'}" for run, parts in told.items())
        raise UserError(
            f"scores of different data, splits or protocols cannot be compared: {differ}; score all alike with segkd.evaluate"
        )
    found = [run for run in runs if run.score is not None]
    for name, same in group_by_method(found).items():
        for seed, times in Counter(run.seed for run in same).items():
            if times > 1:
                where = " and ".join(str(run.directory) for run in same if run.seed == seed)
                raise UserError(f"'{name}' is there {times} times with seed {seed}: {where}; leave all but one out")
    return found, left_out


def compare_methods(
    named: Mapping[str, Sequence[Run]], confidence: float = 0.95, teacher_seconds: float | None = None
) -> list[MethodResult]:
    """Every method against the student alone.

    Args:
        named: name → runs with scores, one for each seed.
        confidence: of the intervals (Student's t), 0..1.
        teacher_seconds: what a teacher cost whose run does not lie beside its weights.
    """
    return [_against_alone(name, runs, named, confidence, teacher_seconds) for name, runs in named.items()]


def _against_alone(
    name: str,
    runs: Sequence[Run],
    named: Mapping[str, Sequence[Run]],
    confidence: float,
    teacher_seconds: float | None,
) -> MethodResult:
    others = find_baselines(runs, named) if runs[0].terms else []
    known = runs[0].teacher_seconds
    cost = teacher_seconds if known is None else known
    time = math.inf if cost is None else _mean_seconds(runs) + cost
    equal_steps = next((other for other in others if other[0].steps == runs[0].steps), ())
    equal_time = min((other for other in others if _mean_seconds(other) >= time), key=_mean_seconds, default=())
    steps, seconds = (
        paired_difference([ours.miou - theirs.miou for ours, theirs in _pairs(runs, other)], confidence)
        for other in (equal_steps, equal_time)
    )
    return MethodResult(name, runs, steps, seconds, cost, _class_gains(runs, equal_steps))


def paired_difference(differences: Sequence[float], confidence: float) -> Difference | None:
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


def summary_table(rows: Sequence[MethodResult]) -> Rows:
    """Scores in per cent; a method's time is its own, its teacher's stands beside it."""
    titles = ["method", "seeds", "mIoU", "at equal steps", "at equal time", "steps", "ms per step", "s", "teacher's s"]
    return [titles, *(_cells(row) for row in rows)]


def _cells(row: MethodResult) -> list[str]:
    return [
        row.name,
        str(len(row.runs)),
        _mean_std([100 * run.miou for run in row.runs]),
        _format_values_of(row.at_equal_steps),
        _format_values_of(row.at_equal_time),
        str(row.runs[0].steps),
        f"{1e3 * row.seconds_per_step:.0f}",
        f"{row.seconds:.0f}",
        "?" if row.teacher_seconds is None else f"{row.teacher_seconds:.0f}" if row.runs[0].terms else "",
    ]


def class_table(rows: Sequence[MethodResult]) -> Rows:
    """IoU of the students alone and gains of the others at equal steps, in per cent; without a student alone, IoU of all."""
    alone = any(not row.runs[0].terms for row in rows)
    lines = [["class", *(row.name for row in rows)]]
    for name in dict.fromkeys(name for row in rows for run in row.runs for name in run.iou):
        lines.append([name, *(_of_class(row, name, alone) for row in rows)])
    return lines


def _of_class(row: MethodResult, name: str, gains: bool) -> str:
    if gains and row.runs[0].terms:
        return _signed(row.class_gains[name]) if name in row.class_gains else ""
    values = [run.iou[name] for run in row.runs if name in run.iou]
    return f"{100 * fmean(values):.2f}" if values else "absent"


def _mean_std(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _format_values_of(difference: Difference | None) -> str:
    if difference is None:
        return ""
    interval = "" if math.isnan(difference.low) else f" ({100 * difference.low:.2f} to {100 * difference.high:.2f})"
    return f"{_signed(difference.mean)}{interval}"


def _signed(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # a zero has no minus
