"""`python -m segkd.ladder`: a table of methods over seeds, trained in stages, scored once, written from what was scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.cli import launch
from segkd.config import Settings, validate
from segkd.errors import Refused
from segkd.ladders.carrying import carry
from segkd.ladders.plan import RowSettings, jobs
from segkd.ladders.records import score, table, write_into
from segkd.ladders.training import train
from segkd.survival.signals import Signals
from segkd.tables import Format, show

NOTHING = "No figures yet: `python -m segkd.ladder plan={name}` makes them."
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


class LadderSettings(Settings):
    """`python -m segkd.ladder`."""

    name: str
    title: str
    stages: Annotated[list[Literal["train", "carry", "score", "table"]], Field(min_length=1)]
    rows: Annotated[dict[str, RowSettings], Field(min_length=1)]
    only: list[str] | None
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
    format: Format


def ladder(cfg: DictConfig) -> None:
    """Train, carry, score and print, as far as asked."""
    settings = validate(cfg, LadderSettings)
    where = [] if settings.dataset.root is None else [f"dataset.root={settings.dataset.root}"]
    planned = jobs(settings.rows, settings.only, settings.seeds, settings.runs, [*settings.overrides, *where])
    failed = []
    for stage in dict.fromkeys(settings.stages):
        if stage == "train":
            with Signals() as signals:
                signals.deferred = True
                failed = train(planned, settings.parallel, settings.minutes, settings.runs, signals)
            if signals.received:
                raise SystemExit(128 + signals.received)
        elif stage == "carry":
            kept = settings.carry
            for path in carry(planned, settings.runs, kept.to, kept.files, kept.mebibytes):
                print(f"left behind for want of room: {path}")
        elif stage == "score":
            score(planned, [f"dataset={settings.dataset.name}", *where], settings.split, settings.results)
        else:
            _table(settings)
    if failed:
        raise Refused(
            f"{len(failed)} trainings failed: {', '.join(job.name for job in failed)}; the same command tries them again"
        )


def _table(settings: LadderSettings) -> None:
    cells = table(settings.results, list(settings.rows))
    if cells:
        show(cells, settings.format, settings.title)
    else:
        print(f"no records in {settings.results}")
    if settings.page is not None:
        write_into(settings.page, settings.name, cells, NOTHING.format(name=settings.name))


if __name__ == "__main__":
    launch(ladder, "ladder")
