"""The networks of the web demo: students of runs, and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.student_io import load_student
from segkd.runs.load import load_run_teacher
from segkd.runs.methods import BASELINE
from segkd.runs.run import read_run


class ServedNetwork(NamedTuple):
    """A network, and how it was trained."""

    network: SegmentationModel
    trained_with: str
    """Labels and distillation losses; '' if unknown."""

    @property
    def num_parameters(self) -> int:
        """Number of its parameters."""
        return count_parameters(self.network)


def load_networks(runs: Sequence[Path], show_teacher: bool) -> dict[str, ServedNetwork]:
    """Return the teacher of the first run that has one, if wanted, and the student of each run.

    Students are named by their training: "student" if it is unknown, "distilled", or the baseline's name; with their
    folder if two would have the same name.
    """
    return {**(_load_first_teacher(runs) if show_teacher else {}), **_load_students(runs)}


def _load_first_teacher(runs: Sequence[Path]) -> dict[str, ServedNetwork]:
    for run in runs:
        network = load_run_teacher(run)
        if network is not None:
            return {"teacher": ServedNetwork(network, "")}
    return {}


def _load_students(runs: Sequence[Path]) -> dict[str, ServedNetwork]:
    terms = [read_run(run).terms if (run / "config.yaml").is_file() else None for run in runs]
    names = ["student" if losses is None else "distilled" if losses else BASELINE for losses in terms]
    return {
        name if names.count(name) == 1 else f"{name} ({run})": ServedNetwork(
            load_student(run), "" if losses is None else " + ".join(["labels", *losses])
        )
        for run, name, losses in zip(runs, names, terms, strict=True)
    }
