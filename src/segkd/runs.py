"""Runs of `segkd.train`, read back from their folders, and told apart by what was asked of them."""

from __future__ import annotations

import csv
import glob
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segkd.callbacks.metrics_file import METRICS
from segkd.cli import leaves
from segkd.errors import UserError

ALONE = "student alone"

# What says nothing of the method: which copy of it a run is, where it is written to, how one looks on.
_CIRCUMSTANCES = (
    "seed", "name", "output_dir", "resume", "preflight", "dry_run", "wandb", "checkpoint", "data.workers",
    "trainer.progress", "trainer.log_every", "trainer.shares_every", "trainer.validate_every", "dataset.root",
)  # fmt: skip

_LENGTH = ("trainer.max_epochs", "trainer.limit_train_batches")


class Score(NamedTuple):
    """What a run's student is worth."""

    miou: float
    iou: dict[str, float]
    """Of the classes that are there or predicted."""
    measured_on: str
    """Data set, split and protocol: only scores measured on the same can be compared."""


class Run(NamedTuple):
    """A folder that `segkd.train` left."""

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None
    """None: it did not finish."""
    score: Score | None
    evaluation: dict[str, Any] | None
    """All that `segkd.evaluate` found; None: its score is of the last validation."""

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
        """What it learns from besides labels."""
        critic = ["holistic"] if self.config["adversary"].get("_target_") else []
        return [name for name in self.config["loss"] if name != "cross_entropy"] + critic

    @property
    def command(self) -> str:
        """What made it."""
        environment = _json(self.directory / "environment.json") or {}
        return shlex.join(environment.get("command", []))

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Of `metrics.csv`: name → (step, value), without gaps."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in _rows(self.directory):
            for name, value in row.items():
                if value and name != "step":
                    found.setdefault(name, []).append((int(float(row["step"])), float(value)))
        return found

    def teacher_seconds(self) -> float | None:
        """What its teacher cost: 0 without one; None where the teacher's own run does not lie beside its weights."""
        if not self.terms:
            return 0.0
        summary = Path(str(self.config["teacher"].get("checkpoint"))).parent / "summary.json"
        return float(json.loads(summary.read_text())["seconds"]) if summary.is_file() else None


def find(patterns: Iterable[str]) -> tuple[list[Run], list[Path]]:
    """The runs in the folders that match, in order; and the folders that hold none.

    Raises:
        UserError: no folder matches, or none holds a run.
    """
    patterns = list(patterns)
    matches = (found for pattern in patterns for found in glob.glob(pattern))  # noqa: PTH207  Path.glob refuses absolute ones
    folders = sorted({Path(found) for found in matches if Path(found).is_dir()}, key=_by_number)
    runs = [read(folder) for folder in folders if (folder / "config.yaml").is_file()]
    if not runs:
        raise UserError(
            f"{' and '.join(patterns)} {'names no folder' if not folders else 'names no folder of a run'}; "
            "give folders that segkd.train left, as in runs='runs/quickstart/*'"
        )
    return runs, [folder for folder in folders if not (folder / "config.yaml").is_file()]


def _by_number(folder: Path) -> list[tuple[int, str]]:
    """So that the ninth job of a sweep comes before the tenth."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in folder.parts]


def read(directory: Path) -> Run:
    """The run in a folder.

    Its score is that of `evaluation.json`, or without one the last of its validation.

    Raises:
        UserError: a file of it is damaged.
    """
    try:
        config = yaml.safe_load((directory / "config.yaml").read_text())
        summary = _json(directory / "summary.json")
        evaluation = _json(directory / "evaluation.json")
        score = None if summary is None else _evaluated(evaluation) if evaluation else _validated(directory, config)
        return Run(directory, config, summary, score, evaluation)
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory} holds a damaged run ({type(error).__name__}: {error}); leave it out") from None


def methods(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in nothing but their seed, by what tells them from the others; the student alone first.

    The name of a method is its terms, and what else differs between these runs.
    """
    asked = [_asked(run) for run in runs]
    values: dict[str, set[str]] = {}
    for key, value in (pair for keys in asked for pair in keys.items()):
        values.setdefault(key, set()).add(str(value))
    differing = [key for key, given in values.items() if len(given) > 1]
    named: dict[str, list[Run]] = {}
    for run, keys in zip(runs, asked, strict=True):
        more = [f"{key}={keys[key]}" for key in differing if key in keys]
        named.setdefault(", ".join([" + ".join(run.terms) or ALONE, *more]), []).append(run)
    return dict(sorted(named.items(), key=lambda pair: not pair[0].startswith(ALONE)))


def baselines(runs: Sequence[Run], compared: Mapping[str, Sequence[Run]]) -> list[Sequence[Run]]:
    """The methods among `compared` that are the student of `runs` alone, trained alike for as long or for another time."""
    keys = _asked(runs[0])
    return [others for others in compared.values() if not others[0].terms and _alike(keys, _asked(others[0]))]


def _alike(keys: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(keys[key] == others[key] for key in keys.keys() & others.keys() if key not in _LENGTH)


def _asked(run: Run) -> dict[str, Any]:
    """The keys of its config that say what method it is; the terms that it leaves out have none."""
    unheard = () if run.terms else ("teacher",)
    idle = () if "holistic" in run.terms else ("adversary", "optimizers.discriminator")
    left_out = (*_CIRCUMSTANCES, *unheard, *idle)
    return {
        key: value
        for key, value in leaves(run.config)
        if not any(key == out or key.startswith(f"{out}.") for out in left_out)
    }


def _evaluated(evaluation: dict[str, Any]) -> Score:
    where = f"{evaluation['dataset']} {evaluation['split']}, {evaluation['images']} images, {evaluation['protocol']}"
    iou = {name: value for name, value in evaluation["iou"].items() if value is not None}
    return Score(evaluation["miou"], iou, where)


def _validated(directory: Path, config: dict[str, Any]) -> Score | None:
    rows = [row for row in _rows(directory) if row.get("val/miou")]
    if not rows:
        return None
    iou = {key.removeprefix("val/iou/"): float(x) for key, x in rows[-1].items() if key.startswith("val/iou/") and x}
    data = config["dataset"]["_target_"].rpartition(".")[2]
    where = f"{data} {config['data']['val_split']}, at the end of training"
    return Score(float(rows[-1]["val/miou"]), {name: x for name, x in iou.items() if not math.isnan(x)}, where)


def _rows(directory: Path) -> list[dict[str, str]]:
    with (directory / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None
