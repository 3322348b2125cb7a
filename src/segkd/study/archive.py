"""What trainings left, in a few files of limited size: for a machine that keeps nothing."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from segkd.errors import UserError
from segkd.runs.layout import LAST_CHECKPOINT
from segkd.study.plan import RESULT_FILES, Job, is_finished

_SPARE = 64 * 1024  # bytes: headers and the rounding up of a tar


def archive(jobs: Sequence[Job], runs: Path, directory: Path, files: int, mebibytes: float) -> list[Path]:
    """Write `part_N.tar` with what finished, most important first, then with the checkpoints of what did not; returns what found no room.

    `tar xf part_N.tar -C RUNS` puts it where it was, on any machine.

    Raises:
        UserError: the folder holds parts already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.glob("part_*.tar")):
        raise UserError(f"{directory} holds parts already; empty it, or give another carry.to")
    room = [int(mebibytes * 2**20) - _SPARE] * files
    parts: list[list[Path]] = [[] for _ in room]
    left_behind = []
    for path in [*_kept(jobs, True), *_kept(jobs, False)]:
        size = path.stat().st_size + 1024
        fitting = next((i for i, space in enumerate(room) if space >= size), None)
        if fitting is None:
            left_behind.append(path)
        else:
            room[fitting] -= size
            parts[fitting].append(path)
    for number, paths in enumerate(parts):
        if paths:
            with tarfile.open(directory / f"part_{number}.tar", "w") as file:
                for path in paths:
                    file.add(path, path.relative_to(runs))
    return left_behind


def _kept(jobs: Sequence[Job], done: bool) -> list[Path]:
    names = (
        RESULT_FILES
        if done
        else (LAST_CHECKPOINT, f"{LAST_CHECKPOINT}.sha256", "config.yaml", "environment.json", "metrics.csv")
    )
    there = [job.directory / name for job in jobs if is_finished(job.directory) == done for name in names]
    return [path for path in there if path.is_file()]
