"""`python -m segkd.study`: train methods over seeds, score them once, and write a table of the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.build.datasets import open_dataset
from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.config.schema import Settings, load_settings
from segkd.data.base import SegmentationDataset
from segkd.errors import CheckFailed, UserError
from segkd.study.picture import draw_picture
from segkd.study.plan import Job, MethodSettings, plan_jobs
from segkd.study.results import build_table, score_jobs, update_markdown_table
from segkd.study.scheduler import run_jobs
from segkd.utils.signals import GracefulShutdown
from segkd.utils.tables import TableFormat, print_table

EMPTY_TABLE = "No figures yet: `python -m segkd.study plan={name}` makes them."
"""Placeholder on a Markdown page for a table without records."""


class StudyDatasetSettings(Settings):
    """The dataset that students are trained and scored on."""

    name: str
    root: Path | None


class StudySettings(Settings):
    """Settings of `python -m segkd.study`."""

    name: str
    title: str
    stages: Annotated[list[Literal["train", "score", "table"]], Field(min_length=1)]
    methods: Annotated[dict[str, MethodSettings], Field(min_length=1)]
    select: list[str] | None
    seeds: Annotated[list[int], Field(min_length=1)]
    overrides: list[str]
    parallel: PositiveInt
    minutes: float | None = Field(gt=0)
    runs: Path
    results: Path
    dataset: StudyDatasetSettings
    split: str
    columns: list[str] | None
    page: Path | None
    picture: Path | None
    images: PositiveInt
    format: TableFormat

    @property
    def root_overrides(self) -> list[str]:
        """The override that says where the dataset is."""
        return [] if self.dataset.root is None else [f"dataset.root={self.dataset.root}"]


def study(cfg: DictConfig) -> None:
    """Run the stages of a study in the given order."""
    settings = load_settings(cfg, StudySettings)
    overrides = [*settings.overrides, *settings.root_overrides]
    jobs = plan_jobs(settings.methods, settings.select, settings.seeds, settings.runs, overrides)
    failed: list[Job] = []
    for stage in dict.fromkeys(settings.stages):
        if stage == "train":
            failed = _train(jobs, settings)
        elif stage == "score":
            dataset = [f"dataset={settings.dataset.name}", *settings.root_overrides]
            score_jobs(jobs, dataset, settings.split, settings.results)
        else:
            _write_table(settings)
            _write_picture(jobs, settings)
    if failed:
        names = ", ".join(job.name for job in failed)
        raise CheckFailed(f"{len(failed)} trainings failed: {names}; the same command tries them again")


def _train(jobs: list[Job], settings: StudySettings) -> list[Job]:
    """Run the trainings, and return those that failed; exit with 128 + N on signal N."""
    with GracefulShutdown() as shutdown:
        shutdown.deferred = True
        failed = run_jobs(jobs, settings.parallel, settings.minutes, settings.runs, shutdown)
    if shutdown.received:
        raise SystemExit(128 + shutdown.received)
    return failed


def _write_table(settings: StudySettings) -> None:
    rows = build_table(settings.results, list(settings.methods), settings.columns)
    if rows:
        print_table(rows, settings.format, settings.title)
    else:
        print(f"no records in {settings.results}")
    if settings.page is not None:
        update_markdown_table(settings.page, settings.name, rows, EMPTY_TABLE.format(name=settings.name))


def _write_picture(jobs: list[Job], settings: StudySettings) -> None:
    if settings.picture is None:
        return
    if draw_picture(jobs, _open_split(settings), settings.images, settings.picture):
        print(settings.picture)
    else:
        print("no training has finished, so there is no picture")


def _open_split(settings: StudySettings) -> SegmentationDataset:
    file = CONFIGS / "dataset" / f"{settings.dataset.name}.yaml"
    if not file.is_file():
        raise UserError(
            f"there is no dataset '{settings.dataset.name}'; give dataset.name=NAME, a file of configs/dataset"
        )
    node = yaml.safe_load(file.read_text())
    if settings.dataset.root is not None:
        node["root"] = str(settings.dataset.root)
    try:
        spec = parse_spec(node)
    except ValueError as error:
        raise UserError(f"dataset '{settings.dataset.name}': {error}") from None
    return open_dataset(spec, settings.split)
