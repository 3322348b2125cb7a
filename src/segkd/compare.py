"""`python -m segkd.compare`: methods side by side, over their seeds, against the student alone."""

from __future__ import annotations

import sys

from omegaconf import DictConfig
from pydantic import Field

from segkd.cli import launch
from segkd.config import RunFolders, Settings, validate
from segkd.reports.comparison import by_class, comparable, compared, overall
from segkd.runs import ALONE, methods
from segkd.tables import Format, show


class CompareSettings(Settings):
    """`python -m segkd.compare`."""

    runs: RunFolders
    format: Format
    classes: bool
    confidence: float = Field(gt=0, lt=1)
    teacher_seconds: float | None = Field(ge=0)


def compare(cfg: DictConfig) -> None:
    """Print a table of methods: scores, gains at equal steps and at equal time, and costs; or the gains by class."""
    settings = validate(cfg, CompareSettings)
    scored, left_out = comparable(settings.runs)
    for sentence in left_out:
        _say(f"{sentence}; left out")
    rows = compared(methods(scored), settings.confidence, settings.teacher_seconds)
    if all(row.runs[0].terms for row in rows):
        _say(
            f"no {ALONE} is among these runs: add some without a teacher (loss=[cross_entropy] adversary=none) to see what is gained"
        )
    assert scored[0].score is not None
    title = f"{scored[0].score.measured_on}; {100 * settings.confidence:g} % intervals"
    show(by_class(rows) if settings.classes else overall(rows), settings.format, title)


def _say(text: str) -> None:
    print(f"segkd: {text}", file=sys.stderr)


if __name__ == "__main__":
    launch(compare, "compare")
