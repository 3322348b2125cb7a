"""`python -m segkd.compare`: methods side by side, over their seeds, against the student alone."""

from __future__ import annotations

import sys

from omegaconf import DictConfig
from pydantic import Field

from segkd.cli.launch import launch
from segkd.config.schema import RunFolders, Settings, load_settings
from segkd.report.comparison import class_table, compare_methods, load_comparable_runs, summary_table
from segkd.runs.methods import BASELINE, group_by_method
from segkd.utils.tables import TableFormat, print_table


class CompareSettings(Settings):
    """`python -m segkd.compare`."""

    runs: RunFolders
    format: TableFormat
    classes: bool
    confidence: float = Field(gt=0, lt=1)
    teacher_seconds: float | None = Field(ge=0)


def compare(cfg: DictConfig) -> None:
    """Print a table of methods: scores, gains at equal steps and at equal time, and costs; or the gains by class."""
    settings = load_settings(cfg, CompareSettings)
    scored, left_out = load_comparable_runs(settings.runs)
    for sentence in left_out:
        _say(f"{sentence}; left out")
    rows = compare_methods(group_by_method(scored), settings.confidence, settings.teacher_seconds)
    if all(row.runs[0].terms for row in rows):
        _say(
            f"no {BASELINE} is among these runs: add some without a teacher (loss=[cross_entropy] adversary=none) to see what is gained"
        )
    assert scored[0].score is not None
    title = f"{scored[0].score.measured_on}; {100 * settings.confidence:g} % intervals"
    print_table(class_table(rows) if settings.classes else summary_table(rows), settings.format, title)


def _say(text: str) -> None:
    print(f"segkd: {text}", file=sys.stderr)


if __name__ == "__main__":
    launch("compare")
