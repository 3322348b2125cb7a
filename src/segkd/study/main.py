"""`python -m segkd.study`: train methods over seeds, score them once, and write a table of the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import BeforeValidator, Field, PositiveInt

from segkd.builders.datasets import open_dataset
from segkd.cli.quoting import format_override
from segkd.config.instantiate import parse_spec
from segkd.config.named_parts import read_part
from segkd.config.schema import Settings, load_settings
from segkd.data.base import SegmentationDataset
from segkd.errors import CheckFailed, UserError
from segkd.study.picture import draw_picture
from segkd.study.plan import Job, MethodSettings, Overrides, plan_jobs
from segkd.study.results import build_table, score_jobs, update_markdown_table
from segkd.study.scheduler import run_jobs
from segkd.utils.signals import GracefulShutdown
from segkd.utils.tables import TableFormat, print_table

EMPTY_TABLE = "No figures yet: `python -m segkd.study plan={name}` makes them."
"""Placeholder on a Markdown page for a table without records."""


class StudyDatasetSettings(Settings):
    """The dataset that students are trained and scored on."""

    name: str = Field(
        description="name of the dataset, from the plan",
        json_schema_extra={"values": "NAME", "help": False, "default": "per plan"},
    )
    root: Path | None = Field(
        description="folder of the dataset; null: the dataset is generated", json_schema_extra={"values": "DIR|null"}
    )


class StudySettings(Settings):
    """Settings of `python -m segkd.study`."""

    name: str = Field(
        description="name of the study, from the plan",
        json_schema_extra={"values": "NAME", "help": False, "default": "per plan"},
    )
    title: str = Field(
        description="title of the table, from the plan",
        json_schema_extra={"values": "TEXT", "help": False, "default": "per plan"},
    )
    stages: Annotated[
        list[Literal["train", "score", "table"]],
        Field(min_length=1),
        BeforeValidator(lambda stages: _check_stages(stages)),
    ] = Field(description="what to do, in this order")
    methods: Annotated[dict[str, MethodSettings], Field(min_length=1)] = Field(
        description="the methods of the plan: experiment, overrides, teacher_from and seeds of each",
        json_schema_extra={"values": "{NAME: …}", "help": False, "default": "per plan"},
    )
    select: list[str] | None = Field(
        description="some of the plan's methods; the teachers they need are added",
        json_schema_extra={"values": "[METHOD,…]|null"},
    )
    seeds: Annotated[list[int], Field(min_length=1)] = Field(
        description="seeds of every method", json_schema_extra={"default": "per plan"}
    )
    overrides: Overrides = Field(
        description="overrides of every training, such as 'trainer.max_epochs=2'",
        json_schema_extra={"values": "['KEY=VALUE',…]"},
    )
    parallel: PositiveInt = Field(description="trainings at once")
    minutes: float | None = Field(gt=0, description="stop after this time; the same command continues. null: no limit")
    runs: Path = Field(description="folder of the trainings", json_schema_extra={"values": "DIR"})
    results: Path = Field(description="folder of the records", json_schema_extra={"values": "DIR"})
    dataset: StudyDatasetSettings = Field(description="the dataset")
    split: str = Field(
        description="split to score on, from the plan",
        json_schema_extra={"values": "NAME", "help": False, "default": "per plan"},
    )
    columns: list[str] | None = Field(
        description="columns of the table, parameters among them; null: the usual ones",
        json_schema_extra={"values": "[TITLE,…]|null"},
    )
    page: Path | None = Field(
        description="Markdown page that gets the table, between <!-- study NAME --> and <!-- study end -->",
        json_schema_extra={"values": "FILE|null"},
    )
    picture: Path | None = Field(
        description="PNG file of images, ground truth and each method's predictions",
        json_schema_extra={"values": "FILE|null"},
    )
    images: PositiveInt = Field(description="images in the picture")
    format: TableFormat = Field(description="format of the printed table")

    @property
    def root_overrides(self) -> list[str]:
        """The override that says where the dataset is."""
        return [] if self.dataset.root is None else [format_override("dataset.root", self.dataset.root)]


def _check_stages(stages: Any) -> Any:
    if isinstance(stages, list) and "carry" in stages:
        raise ValueError("the stage 'carry' is gone; copy the runs with tar")
    return stages


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
    node = read_part("dataset", settings.dataset.name)
    if settings.dataset.root is not None:
        node["root"] = str(settings.dataset.root)
    try:
        spec = parse_spec(node)
    except ValueError as error:
        raise UserError(f"dataset '{settings.dataset.name}': {error}") from None
    return open_dataset(spec, settings.split)
