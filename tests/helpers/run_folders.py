"""Run folders as `segkd.train` writes them, and records as `segkd.study` writes them, without a training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import yaml

PIXELWISE, ADVERSARIAL = ("pixelwise",), ("adversarial",)
EVALUATION = {"dataset": "Streets", "split": "val", "images": 1, "protocol": {"void": "ignored"}}


def write_run_folder(
    parent: Path,
    miou: float | None,
    terms: tuple[str, ...] = (),
    seed: int = 0,
    seconds: float = 10.0,
    epochs: int = 2,
    steps: int = 100,
    iou: dict[str, float] | None = None,
    data: str = "Streets",
    teacher: Path | None = None,
    name: str = "run",
    **loss: Any,
) -> Path:
    """Write the next numbered run folder in `parent`; a run without an mIoU did not finish."""
    directory = parent / f"{len(list(parent.iterdir())):02d}"
    directory.mkdir()
    config = {
        "name": name,
        "seed": seed,
        "output_dir": str(directory),
        "dataset": {"_target_": f"segkd.data.{data.lower()}.{data}"},
        "data": {"batch_size": 4, "val_split": "val"},
        "loss": _build_losses(terms, **loss),
        "adversary": {
            "_target_": "segkd.distillation.adversary.Adversary" if "adversarial" in terms else None,
            "weight": 0.1,
        },
        "teacher": {"checkpoint": str(teacher or parent / "missing.safetensors")},
        "trainer": {"max_epochs": epochs},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    if miou is not None:
        (directory / "summary.json").write_text(json.dumps({"steps": steps, "seconds": seconds, "val_miou": miou}))
        values = {"step": steps, "val/miou": miou, **{f"val/iou/{k}": v for k, v in (iou or {"road": miou}).items()}}
        write_metrics(directory, [{"step": 0}, values])
    return directory


def write_metrics(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Write a run's `metrics.csv`; the last row has every column."""
    with (directory / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)


def write_record(
    results: Path, method: str, seed: int, miou: float, seconds: float = 100, terms: tuple[str, ...] = (), **other: Any
) -> None:
    """Write a record of a training as earlier versions did; their keys are still read.

    Args:
        results: folder of the records.
        method: name of the method.
        seed: of the training.
        miou: on the test split.
        seconds: of the training.
        terms: losses that use the teacher.
        **other: more keys of the record.
    """
    results.mkdir(exist_ok=True)
    evaluation = {
        **EVALUATION,
        "miou": miou,
        "iou": {"road": miou},
        "sequences": {"0001TP": {"miou": miou + 0.1}, "Seq05VD": {"miou": miou - 0.1}},
        "void_counted": {"miou": miou - 0.02},
    }
    config = {
        "seed": seed,
        "loss": _build_losses(terms),
        "adversary": {"_target_": None},
        "teacher": {},
        "trainer": {"max_epochs": 5},
    }
    record = {
        "row": method,
        "config": config,
        "evaluation": evaluation,
        "summary": {"steps": 10, "seconds": seconds},
        "environment": {},
        "teacher_seconds": 30.0 if terms else 0.0,
        **other,
    }
    (results / f"{method}_{seed}.json").write_text(json.dumps(record))


def _build_losses(terms: tuple[str, ...], **arguments: Any) -> dict[str, dict[str, Any]]:
    losses: dict[str, dict[str, Any]] = {
        "cross_entropy": {"_target_": "segkd.losses.cross_entropy.CrossEntropy", "weight": 1.0}
    }
    for term in terms:
        if term != "adversarial":
            losses[term] = {"_target_": f"segkd.losses.{term}.{term.title()}", "weight": 2.0, **arguments}
    return losses
