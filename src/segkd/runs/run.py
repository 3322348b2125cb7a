"""Runs of `segkd.train`, read back, and told apart by what was asked of them."""

from __future__ import annotations

import csv
import glob
import json
import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segkd.config.instantiate import resolve_target
from segkd.errors import UserError
from segkd.models.checkpoint_io import student_metadata
from segkd.runs.layout import METRICS_FILE, RECORD_SUFFIX


class Score(NamedTuple):
    """What a run's student is worth."""

    miou: float
    iou: dict[str, float]
    """Of the classes that are there or predicted."""
    measured_on: str
    """Data set, split and protocol: only scores measured on the same can be compared."""


class Run(NamedTuple):
    """What `segkd.train` left: a folder, or what `segkd.study` recorded of one in a file."""

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None
    """None: it did not finish."""
    score: Score | None
    evaluation: dict[str, Any] | None
    """All that `segkd.evaluate` found; None: its score is of the last validation."""
    environment: dict[str, Any]
    teacher_seconds: float | None
    """What its teacher cost: 0 without one; None where the teacher's own run does not lie beside its weights."""

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def steps(self) -> int:
        return int(self.summary["steps"]) if self.summary else 0

    @property
    def seconds(self) -> float:
        return float(self.summary["seconds"]) if self.summary else 0.0

    @property
    def miou(self) -> float:
        assert self.score is not None
        return self.score.miou

    @property
    def iou(self) -> dict[str, float]:
        assert self.score is not None
        return self.score.iou

    @property
    def terms(self) -> list[str]:
        """What it learns from besides labels; a student alone has none."""
        return _terms(self.config)

    @property
    def command(self) -> str:
        """What made it."""
        return shlex.join(self.environment.get("command", []))

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Of `metrics.csv`: name → (step, value), without gaps."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in _rows(self.directory):
            for name, value in row.items():
                if value and name != "step":
                    found.setdefault(name, []).append((int(float(row["step"])), float(value)))
        return found


def find_runs(patterns: Iterable[str]) -> tuple[list[Run], list[Path]]:
    """The runs in the folders, or recorded in the files, that match, in order; and the folders and files that hold none.

    Raises:
        UserError: no folder matches, or none holds a run.
    """
    patterns = list(patterns)
    matches = (found for pattern in patterns for found in glob.glob(pattern))  # noqa: PTH207  Path.glob refuses absolute ones
    places = {Path(found) for found in matches}
    found = sorted((p for p in places if p.is_dir() or p.suffix == RECORD_SUFFIX), key=_by_number)
    holding = [place for place in found if _is_run(place)]
    runs = [read_run(place) for place in holding]
    if not runs:
        raise UserError(
            f"{' and '.join(patterns)} {'names no folder' if not found else 'names no folder of a run'}; "
            "give folders that segkd.train left, as in runs='runs/quickstart/*'"
        )
    return runs, [place for place in found if place not in holding]


def _is_run(place: Path) -> bool:
    if place.suffix != RECORD_SUFFIX:
        return (place / "config.yaml").is_file()
    try:
        held = json.loads(place.read_text())
    except (OSError, ValueError):
        return True  # whoever reads it says what is wrong
    return isinstance(held, dict) and "evaluation" in held


def _by_number(folder: Path) -> list[tuple[int, str]]:
    """So that the ninth job of a sweep comes before the tenth."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in folder.parts]


def read_run(place: Path) -> Run:
    """The run in a folder, or recorded in a file.

    Its score is that of `evaluation.json`, or without one the last of its validation.

    Raises:
        UserError: a file of it is damaged.
    """
    try:
        return _record(place) if place.suffix == RECORD_SUFFIX else _folder(place)
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place} holds a damaged run ({type(error).__name__}: {error}); leave it out") from None


def _folder(directory: Path) -> Run:
    config = yaml.safe_load((directory / "config.yaml").read_text())
    summary = _json(directory / "summary.json")
    evaluation = _json(directory / "evaluation.json")
    score = None if summary is None else _evaluated(evaluation) if evaluation else _validated(directory, config)
    environment = _json(directory / "environment.json") or {}
    return Run(directory, config, summary, score, evaluation, environment, _teacher_seconds(config))


def _record(file: Path) -> Run:
    held = json.loads(file.read_text())
    evaluation = held["evaluation"]
    score = _evaluated(evaluation)
    _terms(held["config"])  # which is asked for later
    return Run(file, held["config"], held["summary"], score, evaluation, held["environment"], held["teacher_seconds"])


def _terms(config: dict[str, Any]) -> list[str]:
    critic = ["adversarial"] if config["adversary"].get("_target_") else []
    return [name for name, node in config["loss"].items() if resolve_target(node).needs_teacher] + critic


def _teacher_seconds(config: dict[str, Any]) -> float | None:
    """Of a teacher that is several, of all of them."""
    if not _terms(config):
        return 0.0
    teacher = config["teacher"]
    checkpoints = [member.get("checkpoint") for member in (teacher.get("members") or {}).values()]
    summaries = [Path(str(file)).parent / "summary.json" for file in checkpoints or [teacher.get("checkpoint")]]
    if not all(summary.is_file() for summary in summaries):
        return None
    return sum(float(json.loads(summary.read_text())["seconds"]) for summary in summaries)


def _evaluated(evaluation: dict[str, Any]) -> Score:
    protocol = [f"{key.replace('_', ' ')}: {value}" for key, value in evaluation["protocol"].items()]
    where = "; ".join([f"{evaluation['dataset']} {evaluation['split']}, {evaluation['images']} images", *protocol])
    iou = {name: value for name, value in evaluation["iou"].items() if value is not None}
    return Score(evaluation["miou"], iou, where)


def _validated(directory: Path, config: dict[str, Any]) -> Score | None:
    rows = [row for row in _rows(directory) if row.get("val/miou")]
    if not rows:
        return None
    iou = {key.removeprefix("val/iou/"): float(x) for key, x in rows[-1].items() if key.startswith("val/iou/") and x}
    where = f"{_data(directory, config)} {config['data']['val_split']}, at the end of training"
    return Score(float(rows[-1]["val/miou"]), {name: x for name, x in iou.items() if not math.isnan(x)}, where)


def _data(directory: Path, config: dict[str, Any]) -> str:
    """A folder of one's own, and a pack, are called by their own name: two of them are not the same data."""
    kind = str(config["dataset"]["_target_"].rpartition(".")[2])
    return str(student_metadata(directory)["dataset"]) if kind in ("Folder", "Packed") else kind


def _rows(directory: Path) -> list[dict[str, str]]:
    if directory.suffix == RECORD_SUFFIX:
        return []
    with (directory / METRICS_FILE).open(newline="") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None
