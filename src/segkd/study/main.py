"""`python -m segkd.study`: a table of methods over seeds, trained in stages, scored once, written from what was scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.config.schema import Settings, load_settings
from segkd.errors import CheckFailed
from segkd.study.archive import archive
from segkd.study.plan import MethodSettings, plan_jobs
from segkd.study.results import build_table, score_jobs, update_markdown_table
from segkd.study.scheduler import run_jobs
from segkd.utils.signals import GracefulShutdown
from segkd.utils.tables import TableFormat, print_table

EMPTY_TABLE = "No figures yet: `python -m segkd.study plan={name}` makes them."
"""In a table's place."""


class CarrySettings(Settings):
    """Where to put what is to leave this machine, in how many files of which size."""

    to: Path
    files: PositiveInt
    mebibytes: float = Field(gt=0)


class DatasetSettings(Settings):
    """On what students are scored, and where it lies: the trainings read it there too."""

    name: str
    root: Path | None


class StudySettings(Settings):
    """`python -m segkd.study`."""

    name: str
    title: str
    stages: Annotated[list[Literal["train", "carry", "score", "table"]], Field(min_length=1)]
    methods: Annotated[dict[str, MethodSettings], Field(min_length=1)]
    select: list[str] | None
    seeds: Annotated[list[int], Field(min_length=1)]
    overrides: list[str]
    parallel: PositiveInt
    minutes: float | None = Field(gt=0)
    runs: Path
    results: Path
    carry: CarrySettings
    dataset: DatasetSettings
    split: str
    page: Path | None
    format: TableFormat


def study(cfg: DictConfig) -> None:
    """Train, carry, score and print, as far as asked."""
    settings = load_settings(cfg, StudySettings)
    where = [] if settings.dataset.root is None else [f"dataset.root={settings.dataset.root}"]
    planned = plan_jobs(settings.methods, settings.select, settings.seeds, settings.runs, [*settings.overrides, *where])
    failed = []
    for stage in dict.fromkeys(settings.stages):
        if stage == "train":
            with GracefulShutdown() as signals:
                signals.deferred = True
                failed = run_jobs(planned, settings.parallel, settings.minutes, settings.runs, signals)
            if signals.received:
                raise SystemExit(128 + signals.received)
        elif stage == "carry":
            kept = settings.carry
            for path in archive(planned, settings.runs, kept.to, kept.files, kept.mebibytes):
                print(f"left behind for want of room: {path}")
        elif stage == "score":
            score_jobs(planned, [f"dataset={settings.dataset.name}", *where], settings.split, settings.results)
        else:
            _table(settings)
    if failed:
        raise CheckFailed(
            f"{len(failed)} trainings failed: {', '.join(job.name for job in failed)}; the same command tries them again"
        )


def _table(settings: StudySettings) -> None:
    cells = build_table(settings.results, list(settings.methods))
    if cells:
        print_table(cells, settings.format, settings.title)
    else:
        print(f"no records in {settings.results}")
    if settings.page is not None:
        update_markdown_table(settings.page, settings.name, cells, EMPTY_TABLE.format(name=settings.name))
