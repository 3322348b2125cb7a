"""What a ladder is made of: rows, each a recipe over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from segkd.config.schema import Settings
from segkd.errors import UserError

RESULT_FILES = ("student.safetensors", "student.yaml", "summary.json", "config.yaml", "environment.json", "metrics.csv")
"""What is kept of a training that has finished."""


class MethodSettings(Settings):
    """One row of the table."""

    experiment: str
    overrides: list[str] = []
    teacher_from: str | None = None
    """The row whose students are its teacher: one, or, where they are several, the members m0, m1, … of its ensemble."""
    seeds: list[int] | None = Field(default=None, min_length=1)
    """None: those of the ladder."""


class Job(NamedTuple):
    """One training."""

    row: str
    seed: int
    directory: Path
    arguments: tuple[str, ...]
    """Of `segkd.train`."""
    needs: tuple[Path, ...]
    """Folders of the trainings that come first."""

    @property
    def name(self) -> str:
        return f"{self.row}/{self.seed}"


def is_finished(directory: Path) -> bool:
    """Whether the training in a folder has come to its end."""
    return (directory / "summary.json").is_file() and (directory / "student.safetensors").is_file()


def plan_jobs(
    rows: Mapping[str, MethodSettings],
    wanted: Sequence[str] | None,
    seeds: Sequence[int],
    runs: Path,
    more: Sequence[str],
) -> list[Job]:
    """The trainings of the rows that are wanted and of those that they need, in the order of their priority.

    Raises:
        UserError: there is no such row.
    """
    for row in rows.values():
        if row.teacher_from is not None and row.teacher_from not in rows:
            raise _unknown(row.teacher_from, rows)
    names = list(rows) if wanted is None else _with_needs(rows, wanted)
    found = []
    for name in names:
        row = rows[name]
        needs = () if row.teacher_from is None else _folders(rows, row.teacher_from, seeds, runs)
        for seed in row.seeds or seeds:
            directory = runs / name / str(seed)
            typed = [
                f"experiment={row.experiment}",
                *row.overrides,
                *_teachers(needs),
                *more,
                f"seed={seed}",
                f"output_dir={directory}",
            ]
            found.append(Job(name, seed, directory, (*typed, "resume=auto", "trainer.progress=false"), needs))
    return found


def _folders(rows: Mapping[str, MethodSettings], name: str, seeds: Sequence[int], runs: Path) -> tuple[Path, ...]:
    return tuple(runs / name / str(seed) for seed in rows[name].seeds or seeds)


def _teachers(needs: Sequence[Path]) -> list[str]:
    weights = [f"{need}/student.safetensors" for need in needs]
    if len(weights) == 1:
        return [f"teacher.checkpoint={weights[0]}"]
    return [f"teacher.members.m{i}.checkpoint={file}" for i, file in enumerate(weights)]


def _with_needs(rows: Mapping[str, MethodSettings], wanted: Sequence[str]) -> list[str]:
    needed = set()
    waiting = list(wanted)
    while waiting:
        if (name := waiting.pop()) not in rows:
            raise _unknown(name, rows)
        needed.add(name)
        if (teacher := rows[name].teacher_from) is not None:
            waiting.append(teacher)
    return [name for name in rows if name in needed]


def _unknown(name: str, rows: Mapping[str, MethodSettings]) -> UserError:
    return UserError(f"the plan has no row '{name}'; it has {', '.join(rows)}")
