"""`python -m segkd.compare`: compare methods over their seeds with the baseline."""

from __future__ import annotations

import logging

from omegaconf import DictConfig
from pydantic import Field

from segkd.cli.launch import launch
from segkd.config.schema import RunFolders, Settings, load_settings
from segkd.report.comparison import build_class_table, build_summary_table, compare_methods
from segkd.runs.comparable import load_comparable_runs
from segkd.runs.methods import BASELINE, group_by_method
from segkd.utils.tables import TableFormat, print_table

log = logging.getLogger(__name__)


class CompareSettings(Settings):
    """Settings of `python -m segkd.compare`."""

    runs: RunFolders = Field(
        description="folders of runs, scored by evaluation.json or by their last validation",
        json_schema_extra={"values": "'GLOB'|[DIR,…]"},
    )
    format: TableFormat = Field(description="format of the printed table")
    classes: bool = Field(description="show the gain of each class")
    confidence: float = Field(gt=0, lt=1, description="confidence level of the intervals")
    teacher_seconds: float | None = Field(
        ge=0, description="training time of a teacher whose run is not beside its weights, in seconds"
    )


def compare(cfg: DictConfig) -> None:
    """Print a table of methods: scores, gains at equal steps and at equal time, and costs; or the gains by class."""
    settings = load_settings(cfg, CompareSettings)
    runs, notes = load_comparable_runs(settings.runs)
    for note in notes:
        log.info(note)
    methods = compare_methods(group_by_method(runs), settings.confidence, settings.teacher_seconds)
    if not any(method.is_baseline for method in methods):
        log.info(
            f"no {BASELINE} is among these runs; to see the gain of distillation, "
            "train without a teacher: loss=[cross_entropy] adversary=none"
        )
    assert runs[0].score is not None
    title = f"{runs[0].score.measured_on}; {100 * settings.confidence:g} % intervals"
    print_table(
        build_class_table(methods) if settings.classes else build_summary_table(methods), settings.format, title
    )


if __name__ == "__main__":
    launch("compare")
