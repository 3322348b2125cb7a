"""`python -m segkd.evaluate`: the scores of a network on a split of a data set."""

from __future__ import annotations

import json
import math
import sys
from datetime import datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from segkd import build, networks
from segkd.cli import launch
from segkd.config import EvaluateSettings, validate
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.evaluation import confusion_matrix
from segkd.metrics import Scores
from segkd.models.base import SegmentationModel
from segkd.models.weights import fingerprint, load_student, sha256, trained_facts


def evaluate(cfg: DictConfig) -> float:
    """Score a network, write `evaluation.json`, print a table and, as the last line of stdout, the mIoU."""
    settings = validate(cfg, EvaluateSettings)
    dataset = build.dataset(settings.dataset, settings.split)
    if settings.run is not None:
        _check_chosen(settings.run, dataset)
    network, checkpoint = _network(settings, dataset)
    directory = _directory(settings)
    matrix = confusion_matrix(
        network,
        dataset,
        count_void=settings.void == "counted",
        device=build.device(settings.accelerator),
        workers=settings.workers,
        progress=f"{dataset.title()} {settings.split}",
    )
    scores = Scores.of(matrix, len(dataset.classes))
    if math.isnan(scores.miou):
        raise UserError(f"{dataset.title()} {settings.split} has no labelled pixel to score; choose another split")
    facts = {
        **scores.facts(dataset.classes),
        "confusion_matrix": matrix.tolist(),
        "protocol": {
            "void": settings.void,
            "competing": "all outputs of the network" if settings.void == "counted" else "the data set's classes",
            "input": "whole image, single scale, no flip",
            "logits": f"enlarged bilinearly to the label's size, align_corners={network.align_corners}",
            "mean_over": f"{len(dataset.classes)} classes, from one confusion matrix over all images (rows = truth)",
        },
        "images": len(dataset),
        "dataset": dataset.title(),
        "split": settings.split,
        "classes": list(dataset.classes),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256(checkpoint) if checkpoint.is_file() else fingerprint(network),
    }
    (directory / "evaluation.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    _show(scores, dataset, settings)
    print(f"mIoU {100 * scores.miou:.2f}")
    return scores.miou


def _network(settings: EvaluateSettings, dataset: SegmentationDataset) -> tuple[SegmentationModel, Path]:
    """The network to score and the file it comes from."""
    node = settings.model if settings.model and settings.model["_target_"] else None  # model=none is none
    match settings.run, node, settings.checkpoint:
        case Path() as run, None, None:
            return _student(run, dataset), run / "student.safetensors"
        case None, dict(), Path() as checkpoint:
            network, found = networks.network({**node, "checkpoint": checkpoint}, dataset)
            if found:
                print(found, file=sys.stderr)
            return network, checkpoint
    raise UserError("say what to evaluate: either run=DIR, or model=NAME and checkpoint=FILE")


def _check_chosen(run: Path, dataset: SegmentationDataset) -> None:
    """The default data set is not the one of every run.

    Raises:
        UserError: no data set is chosen, and the student was trained on another.
    """
    trained_on, given = trained_facts(run).get("dataset"), dataset.title()
    chosen = any(override.startswith("dataset=") for override in HydraConfig.get().overrides.task)
    if not chosen and trained_on not in (None, given):
        raise UserError(
            f"the student in {run} was trained on {trained_on}; say which data to score it on: dataset=NAME"
        )


def _student(run: Path, dataset: SegmentationDataset) -> SegmentationModel:
    student = load_student(run)
    if student.num_classes not in (len(dataset.classes), len(dataset.classes) + 1):
        raise UserError(
            f"the student in {run} scores {student.num_classes} classes, {dataset.title()} has {len(dataset.classes)}; "
            "evaluate it on the data set it was trained on"
        )
    return student


def _directory(settings: EvaluateSettings) -> Path:
    """Where evaluation.json goes; made before the work, which a path that cannot be made should not cost."""
    directory = settings.output_dir or settings.run or Path("runs") / f"evaluation_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {directory} ({error.strerror}); give another output_dir") from None
    return directory


def _show(scores: Scores, dataset: SegmentationDataset, settings: EvaluateSettings) -> None:
    table = Table(title=f"{dataset.title()} {settings.split}, {len(dataset)} images, void {settings.void}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, iou in zip(dataset.classes, scores.iou, strict=True):
        table.add_row(name, "absent" if iou != iou else f"{100 * iou:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"class accuracy {100 * scores.class_accuracy:.2f} · pixel accuracy {100 * scores.pixel_accuracy:.2f}"
    )


if __name__ == "__main__":
    launch(evaluate, "evaluate")
