"""The plan of a study: methods, and their trainings over seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from segkd.cli.quoting import format_override
from segkd.config.schema import Settings
from segkd.errors import UserError
from segkd.runs.layout import SUMMARY_FILE
from segkd.utils.plugins import explain_plugins_key

STUDENT_FILE = "student.safetensors"


def _check_overrides(overrides: list[str]) -> list[str]:
    """Return the overrides of a training; a plan is a file, and a training's options and plugins run code."""
    for override in overrides:
        if override.startswith("-"):
            raise ValueError(f"'{override}' is an option; write KEY=VALUE, and options in the command")
        if re.match(r"[+~]*plugins\b", override):
            raise ValueError(explain_plugins_key())
    return overrides


Overrides = Annotated[list[str], AfterValidator(_check_overrides)]


class MethodSettings(Settings):
    """One method of a study."""

    experiment: str = Field(description="experiment to train", json_schema_extra={"values": "NAME"})
    overrides: Overrides = Field(
        default_factory=list, description="overrides of the experiment", json_schema_extra={"values": "['KEY=VALUE',…]"}
    )
    teacher_from: str | None = Field(
        default=None,
        description="method whose students are the teacher; several are the members m0, m1, … of an ensemble",
        json_schema_extra={"values": "METHOD|null"},
    )
    seeds: list[int] | None = Field(
        default=None, min_length=1, description="seeds of this method; null: those of the study"
    )


class Job(NamedTuple):
    """One training."""

    method: str
    seed: int
    directory: Path
    arguments: tuple[str, ...]
    """Arguments of `segkd.train`."""
    depends_on: tuple[Path, ...]
    """Folders of the trainings that have to finish first."""

    @property
    def name(self) -> str:
        """`METHOD/SEED`."""
        return f"{self.method}/{self.seed}"


def is_finished(directory: Path) -> bool:
    """Return whether the training in a folder has finished."""
    return (directory / SUMMARY_FILE).is_file() and (directory / STUDENT_FILE).is_file()


def plan_jobs(
    methods: Mapping[str, MethodSettings],
    select: Sequence[str] | None,
    seeds: Sequence[int],
    runs: Path,
    overrides: Sequence[str],
) -> list[Job]:
    """Return the trainings of the selected methods and of their teachers, in the plan's order.

    Args:
        methods: of the plan, most important first.
        select: names of methods; None selects all.
        seeds: of the methods that have none of their own.
        runs: folder of the trainings.
        overrides: of every training.

    Raises:
        UserError: if a method does not exist.
    """
    for method in methods.values():
        if method.teacher_from is not None:
            _check_method(method.teacher_from, methods)
    names = list(methods) if select is None else _add_teachers(methods, select)
    jobs = []
    for name in names:
        method = methods[name]
        teachers = () if method.teacher_from is None else _list_folders(methods, method.teacher_from, seeds, runs)
        for seed in method.seeds or seeds:
            directory = runs / name / str(seed)
            arguments = (
                f"experiment={method.experiment}",
                *method.overrides,
                *_format_teacher_overrides(teachers),
                *overrides,
                f"seed={seed}",
                format_override("output_dir", directory),
                "resume=auto",
                "trainer.progress=false",
            )
            jobs.append(Job(name, seed, directory, arguments, teachers))
    return jobs


def _list_folders(
    methods: Mapping[str, MethodSettings], name: str, seeds: Sequence[int], runs: Path
) -> tuple[Path, ...]:
    return tuple(runs / name / str(seed) for seed in methods[name].seeds or seeds)


def _format_teacher_overrides(folders: Sequence[Path]) -> list[str]:
    checkpoints = [f"{folder}/{STUDENT_FILE}" for folder in folders]
    if len(checkpoints) == 1:
        return [format_override("teacher.checkpoint", checkpoints[0])]
    return [format_override(f"teacher.members.m{i}.checkpoint", checkpoint) for i, checkpoint in enumerate(checkpoints)]


def _add_teachers(methods: Mapping[str, MethodSettings], select: Sequence[str]) -> list[str]:
    needed: set[str] = set()
    pending = list(select)
    while pending:
        name = pending.pop()
        _check_method(name, methods)
        needed.add(name)
        if (teacher := methods[name].teacher_from) is not None:
            pending.append(teacher)
    return [name for name in methods if name in needed]


def _check_method(name: str, methods: Mapping[str, MethodSettings]) -> None:
    if name not in methods:
        raise UserError(f"the plan has no method '{name}'; its methods are {', '.join(methods)}")
