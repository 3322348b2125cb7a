"""Find and read the runs of `segkd.train`."""

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

from segkd.config.targets import resolve_target
from segkd.errors import UserError
from segkd.models.student_io import read_student_metadata
from segkd.runs.compatibility import RENAMED_CURVES, rename_metrics, rename_targets
from segkd.runs.layout import (
    DISTILLATION_TERMS,
    EVALUATION_FILE,
    METRICS_FILE,
    RECORD_FILES,
    RECORD_SUFFIX,
    SUMMARY_FILE,
)
from segkd.runs.paths import locate_paths

CONFIG_FILE, ENVIRONMENT_FILE = RECORD_FILES


class Score(NamedTuple):
    """The score of a student."""

    miou: float
    iou: dict[str, float]
    """Class → IoU, for the classes that are labeled or predicted."""
    measured_on: str
    """Dataset, split and protocol. Only scores measured on the same can be compared."""
    data: dict[str, Any]
    """What `identify_data` says of the split; empty if the score was recorded by an earlier version."""


class Run(NamedTuple):
    """A run of `segkd.train`, read from its folder or from a record of `segkd.study`."""

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None
    """None if the run did not finish."""
    score: Score | None
    """That of `evaluation.json` or, if there is none, of the last validation; None if the run did not finish."""
    evaluation: dict[str, Any] | None
    """Content of `evaluation.json`. None if the score is that of the last validation."""
    validation: Score | None
    """The score of the last validation; None if the run did not finish, or is a record."""
    environment: dict[str, Any]
    teacher_seconds: float | None
    """Training time of its teacher: 0 without a teacher, None if the teacher's run is not next to its weights."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @property
    def steps(self) -> int:
        """Number of training steps; 0 if the run did not finish."""
        return int(self.summary["steps"]) if self.summary else 0

    @property
    def seconds(self) -> float:
        """Training time; 0 if the run did not finish."""
        return float(self.summary["seconds"]) if self.summary else 0.0

    @property
    def miou(self) -> float:
        """The mIoU of a scored run."""
        assert self.score is not None
        return self.score.miou

    @property
    def iou(self) -> dict[str, float]:
        """Class → IoU of a scored run."""
        assert self.score is not None
        return self.score.iou

    @property
    def terms(self) -> list[str]:
        """Names of the terms that use the teacher; empty for a baseline."""
        return list_distillation_terms(self.config, self.environment)

    @property
    def train_data(self) -> dict[str, Any]:
        """What `identify_data` says of the training split; empty in runs of earlier versions."""
        return dict((self.environment.get("data") or {}).get("train") or {})

    def score_by_validation(self) -> Run:
        """Return the run with the score of its last validation, and without its evaluation."""
        return self._replace(score=self.validation, evaluation=None)

    @property
    def command(self) -> str:
        """The command that started the run."""
        return shlex.join(self.environment.get("command", []))

    def read_curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return the curves of `metrics.csv`: name → (step, value), without gaps."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for row in _read_metrics(self.directory):
            for column, value in row.items():
                if value and column != "step":
                    name = RENAMED_CURVES.get(column, column)
                    curves.setdefault(name, []).append((int(float(row["step"])), float(value)))
        return curves


def find_runs(patterns: Iterable[str]) -> tuple[list[Run], list[Path]]:
    """Return the runs that match glob patterns, in order, and the matching paths that hold no run.

    Args:
        patterns: of run folders, or of the record files that `segkd.study` writes. A path that exists is taken as it is,
            whatever brackets it has.

    Raises:
        UserError: if nothing matches, or nothing that matches is a run.
    """
    patterns = list(patterns)
    matches = {path for pattern in patterns for path in _match(pattern)}
    paths = sorted((path for path in matches if path.is_dir() or path.suffix == RECORD_SUFFIX), key=_number_parts)
    run_paths = [path for path in paths if _is_run(path)]
    runs = [read_run(path) for path in run_paths]
    if not runs:
        raise UserError(
            f"no {'run ' if paths else ''}folder matches {' or '.join(patterns)}; "
            "give folders that segkd.train wrote, as in runs='runs/quickstart/*'"
        )
    return runs, [path for path in paths if path not in run_paths]


def _match(pattern: str) -> list[Path]:
    if Path(pattern).exists():
        return [Path(pattern)]
    return [Path(path) for path in glob.glob(pattern)]  # noqa: PTH207  Path.glob refuses absolute ones


def read_run(path: Path) -> Run:
    """Read a run from its folder, or from a record file.

    The score is that of `evaluation.json` or, if there is none, of the last validation.

    Raises:
        UserError: if one of the run's files is damaged.
    """
    try:
        return _read_record(path) if path.suffix == RECORD_SUFFIX else _read_folder(path)
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds a damaged run ({type(error).__name__}: {error}); leave it out") from None


def list_distillation_terms(config: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    """Return the names of the terms in a run's config that use the teacher; no plugin is imported.

    Args:
        config: that of the run.
        environment: its `environment.json`, which names them; runs of version 0.1.0 have losses of segkd alone.
    """
    if (recorded := environment.get(DISTILLATION_TERMS)) is not None:
        return [str(name) for name in recorded]
    adversarial = ["adversarial"] if config["adversary"].get("_target_") else []
    losses = [name for name, node in config["loss"].items() if resolve_target(node["_target_"]).needs_teacher]
    return losses + adversarial


def _is_run(path: Path) -> bool:
    if path.suffix != RECORD_SUFFIX:
        return (path / CONFIG_FILE).is_file()
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return True  # read_run reports what is wrong with it
    return isinstance(content, dict) and "evaluation" in content


def _number_parts(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts the ninth job of a sweep before the tenth."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]


def _read_folder(directory: Path) -> Run:
    config = rename_targets(yaml.safe_load((directory / CONFIG_FILE).read_bytes()))
    summary = _read_json(directory / SUMMARY_FILE)
    evaluation = _read_json(directory / EVALUATION_FILE)
    if evaluation is not None:
        evaluation = rename_metrics(evaluation)
    environment = _read_json(directory / ENVIRONMENT_FILE) or {}
    score = validation = None
    if summary is not None:
        validation = _score_validation(directory, config, environment)
        score = _score_evaluation(evaluation) if evaluation else validation
    seconds = _sum_teacher_seconds(locate_paths(config, directory), environment)
    return Run(directory, config, summary, score, evaluation, validation, environment, seconds)


def _read_record(file: Path) -> Run:
    record = json.loads(file.read_bytes())
    evaluation = rename_metrics(record["evaluation"])
    config = rename_targets(record["config"])
    environment, seconds = record["environment"], record["teacher_seconds"]
    list_distillation_terms(config, environment)  # fails here, where read_run reports it, if the config is damaged
    score = _score_evaluation(evaluation)
    return Run(file, config, record["summary"], score, evaluation, None, environment, seconds)


def _sum_teacher_seconds(config: dict[str, Any], environment: dict[str, Any]) -> float | None:
    """Return the training time of the teacher; of an ensemble, the sum over its members."""
    if not list_distillation_terms(config, environment):
        return 0.0
    teacher = config["teacher"]
    checkpoints = [member.get("checkpoint") for member in (teacher.get("members") or {}).values()]
    summaries = [Path(str(file)).parent / SUMMARY_FILE for file in checkpoints or [teacher.get("checkpoint")]]
    if not all(summary.is_file() for summary in summaries):
        return None
    return sum(float(json.loads(summary.read_bytes())["seconds"]) for summary in summaries)


def _score_evaluation(evaluation: dict[str, Any]) -> Score:
    protocol = [f"{key.replace('_', ' ')}: {value}" for key, value in evaluation["protocol"].items()]
    data = f"{evaluation['dataset']} {evaluation['split']}, {evaluation['images']} images"
    iou = {name: value for name, value in evaluation["iou"].items() if value is not None}
    return Score(evaluation["miou"], iou, "; ".join([data, *protocol]), evaluation.get("data") or {})


def _score_validation(directory: Path, config: dict[str, Any], environment: dict[str, Any]) -> Score | None:
    rows = [row for row in _read_metrics(directory) if row.get("val/miou")]
    if not rows:
        return None
    last = rows[-1]
    iou = {key.removeprefix("val/iou/"): float(x) for key, x in last.items() if key.startswith("val/iou/") and x}
    measured_on = f"{_name_dataset(directory, config)} {config['data']['val_split']}, at the end of training"
    data = (environment.get("data") or {}).get("val") or {}
    return Score(float(last["val/miou"]), {name: x for name, x in iou.items() if not math.isnan(x)}, measured_on, data)


def _name_dataset(directory: Path, config: dict[str, Any]) -> str:
    """Return the class of the dataset; for a user's own data their own name, so that two of them differ."""
    path = str(config["dataset"]["_target_"])
    kind, is_own = path.rpartition(".")[2], not path.startswith("segkd.")
    return str(read_student_metadata(directory)["dataset"]) if kind in ("Folder", "Packed") or is_own else kind


def _read_metrics(path: Path) -> list[dict[str, str]]:
    if path.suffix == RECORD_SUFFIX:
        return []  # a record has no curves
    with (path / METRICS_FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_bytes()) if path.is_file() else None
