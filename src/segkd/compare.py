"""`python -m segkd.compare`: methods side by side, over their seeds, against the student alone."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Annotated, Any

from omegaconf import DictConfig
from pydantic import BeforeValidator, Field

from segkd.cli import launch
from segkd.comparison import Compared, Difference, compared
from segkd.config import Settings, validate
from segkd.errors import UserError
from segkd.runs import ALONE, Run, find, methods
from segkd.tables import Cells, Format, show

Globs = Annotated[list[str], BeforeValidator(lambda runs: _listed(runs))]


class CompareSettings(Settings):
    """`python -m segkd.compare`."""

    runs: Globs
    format: Format
    classes: bool
    confidence: float = Field(gt=0, lt=1)
    teacher_seconds: float | None = Field(ge=0)


def compare(cfg: DictConfig) -> None:
    """Print a table of methods: scores, gains at equal steps and at equal time, and costs; or the gains by class."""
    settings = validate(cfg, CompareSettings)
    scored = comparable(settings.runs)
    rows = compared(methods(scored), settings.confidence, settings.teacher_seconds)
    if all(row.runs[0].terms for row in rows):
        _say(f"no {ALONE} is among these runs: add some with loss=[cross_entropy] adversary=none to see what is gained")
    assert scored[0].score is not None
    title = f"{scored[0].score.measured_on}; {100 * settings.confidence:g} % intervals"
    show(_by_class(rows) if settings.classes else _overall(rows), settings.format, title)


def _listed(runs: Any) -> Any:
    if not runs:
        raise ValueError("say which: runs='runs/quickstart/*', or a list of folders")
    return [runs] if isinstance(runs, str) else runs


def comparable(patterns: Sequence[str]) -> list[Run]:
    """The runs in the folders that match, which were all scored on the same; says on stderr which others are left out.

    Raises:
        UserError: there is none, or they were scored on different data, splits or protocols, or twice with one seed.
    """
    runs, strangers = find(patterns)
    for folder in strangers:
        _say(f"{folder} holds no run; left out")
    for run in runs:
        if run.score is None:
            _say(f"{run.directory} {'was never scored' if run.summary else 'did not finish'}; left out")
    scored = {run.score.measured_on: run for run in runs if run.score is not None}
    if not scored:
        raise UserError("none of these runs has finished; continue one with resume=DIR/last.ckpt")
    if len(scored) > 1:
        told = "; ".join(f"{run.directory} on {where}" for where, run in scored.items())
        raise UserError(
            f"scores of different data, splits or protocols cannot be compared: {told}; score all alike with segkd.evaluate"
        )
    found = [run for run in runs if run.score is not None]
    for name, same in methods(found).items():
        for seed, times in Counter(run.seed for run in same).items():
            if times > 1:
                where = " and ".join(str(run.directory) for run in same if run.seed == seed)
                raise UserError(f"'{name}' is there {times} times with seed {seed}: {where}; leave all but one out")
    return found


def _overall(rows: Sequence[Compared]) -> Cells:
    """Scores in per cent; a method's time is its own, its teacher's stands beside it."""
    titles = ["method", "seeds", "mIoU", "at equal steps", "at equal time", "steps", "ms per step", "s", "teacher's s"]
    return [titles, *(_cells(row) for row in rows)]


def _cells(row: Compared) -> list[str]:
    return [
        row.name,
        str(len(row.runs)),
        _spread([100 * run.miou for run in row.runs]),
        _told(row.at_equal_steps),
        _told(row.at_equal_time),
        str(row.runs[0].steps),
        f"{1e3 * row.seconds_per_step:.0f}",
        f"{row.seconds:.0f}",
        "?" if row.teacher_seconds is None else f"{row.teacher_seconds:.0f}" if row.runs[0].terms else "",
    ]


def _by_class(rows: Sequence[Compared]) -> Cells:
    """IoU of the students alone and gains of the others at equal steps, in per cent."""
    lines = [["class", *(row.name for row in rows)]]
    for name in dict.fromkeys(name for row in rows for run in row.runs for name in run.iou):
        lines.append([name, *(_of_class(row, name) for row in rows)])
    return lines


def _of_class(row: Compared, name: str) -> str:
    if row.runs[0].terms:
        return f"{100 * row.class_gains[name]:+.2f}" if name in row.class_gains else ""
    values = [run.iou[name] for run in row.runs if name in run.iou]
    return f"{100 * fmean(values):.2f}" if values else "absent"


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _told(difference: Difference | None) -> str:
    if difference is None:
        return ""
    interval = "" if math.isnan(difference.low) else f" ({100 * difference.low:.2f} to {100 * difference.high:.2f})"
    return f"{100 * difference.mean:+.2f}{interval}"


def _say(text: str) -> None:
    print(f"segkd: {text}", file=sys.stderr)


if __name__ == "__main__":
    launch(compare, "compare")
