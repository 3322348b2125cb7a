"""`python -m segkd.evaluate`: the scores of a network on a split of a data set."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt, StrictBool
from torch import Tensor

from segkd import build, candidates, devices, files, tables
from segkd.cli import launch
from segkd.config import Data, Settings, Target, validate
from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from segkd.errors import UserError
from segkd.metrics import Scores
from segkd.models.weights import fingerprint
from segkd.scoring.label_files import LabelFiles
from segkd.scoring.protocol import Protocol
from segkd.scoring.scores import (
    Agreements,
    Boundary,
    Calibrations,
    Categories,
    Finding,
    Instances,
    Interval,
    Score,
    Sequences,
    Trimap,
    columns,
    mean_of,
)
from segkd.scoring.views import View

ScoreName = Literal[
    "iou", "boundary", "trimap", "calibration", "agreement", "categories", "instances", "sequences", "interval"
]


class EvaluateSettings(Settings):
    """`python -m segkd.evaluate`."""

    run: Path | None
    model: Target | None = None
    checkpoint: Path | None
    teacher: Target
    dataset: Data
    split: str
    protocol: Literal["usual", "espnet"]
    void: Literal["ignored", "counted"]
    window: tuple[PositiveInt, PositiveInt] | None
    overlap: float = Field(ge=0, lt=1)
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    flip: StrictBool
    scores: list[ScoreName]
    block: PositiveInt
    resamples: PositiveInt
    corruptions: list[Literal[CORRUPTIONS]]  # type: ignore[valid-type]
    severities: Annotated[list[Annotated[int, Field(ge=1, le=SEVERITIES)]], Field(min_length=1)]
    seed: int = Field(ge=0, lt=2**31)
    format: Literal["table", "markdown", "latex"]
    output_dir: Path | None
    label_files: Path | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    workers: int = Field(ge=0)


def evaluate(cfg: DictConfig) -> float:
    """Score a network, write `evaluation.json`, print a table and, as the last line of stdout, the mIoU."""
    settings = validate(cfg, EvaluateSettings)
    dataset = build.dataset(candidates.data(settings.dataset, settings.run), settings.split)
    network, checkpoint = candidates.network(settings.run, settings.model, settings.checkpoint, dataset)
    protocol = Protocol(
        settings.protocol, settings.void, settings.window, settings.overlap, settings.scales, settings.flip
    )
    view = protocol.view(dataset, network)
    wanted = _wanted(settings, dataset, protocol, view)
    written = [] if settings.label_files is None else [LabelFiles(settings.label_files, dataset)]
    directory = files.made(
        settings.output_dir or settings.run or Path("runs") / f"evaluation_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    )
    device, title = devices.device(settings.accelerator), f"{dataset.title()} {settings.split}"
    look = partial(
        protocol.matrices, network, dataset, view, seed=settings.seed, device=device, workers=settings.workers
    )
    matrices = look(observers=[*wanted.values(), *written], progress=title)
    matrix = matrices.sum(0)
    scores = Scores.of(matrix, len(dataset.classes))
    if math.isnan(scores.miou):
        if written:
            print(f"{len(dataset)} label files in {settings.label_files}; no labelled pixel, so no score")
            return math.nan
        raise UserError(f"{dataset.title()} {settings.split} has no labelled pixel to score; choose another split")
    findings = {name: score.result(matrices) for name, score in wanted.items()}
    if settings.corruptions:
        findings["corruptions"] = _robustness(settings, len(dataset.classes), look, title)
    facts = {
        **scores.facts(dataset.classes),
        "confusion_matrix": matrix.tolist(),
        "protocol": protocol.facts(dataset, network),
        "images": len(dataset),
        "dataset": dataset.title(),
        "split": settings.split,
        "classes": list(dataset.classes),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": files.sha256(checkpoint) if checkpoint.is_file() else fingerprint(network),
        **{name: finding.facts for name, finding in findings.items()},
    }
    _write(directory / "evaluation.json", facts)
    _show(scores, findings, dataset, settings)
    print(f"mIoU {100 * scores.miou:.2f}")
    return scores.miou


def _write(file: Path, facts: dict[str, Any]) -> None:
    """Says on stderr where the scores of something else are replaced: runs are compared by what lies there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(file.read_text())
        if any(before[key] != facts[key] for key in ("dataset", "split", "images", "protocol")):
            print(
                f"segkd: {file} held scores of {before['dataset']} {before['split']}; output_dir=DIR keeps both",
                file=sys.stderr,
            )
    with files.whole(file) as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _wanted(
    settings: EvaluateSettings, dataset: SegmentationDataset, protocol: Protocol, view: View
) -> dict[str, Score]:
    """The chosen scores besides IoU, in their order, each once.

    Raises:
        UserError: Cityscapes' own scores of another data set, or agreement without a teacher.
    """
    device, outputs = devices.device(settings.accelerator), len(dataset.classes) + protocol.void_competes

    def made(name: ScoreName) -> Score:
        match name:
            case "boundary":
                return Boundary(dataset, device)
            case "trimap":
                return Trimap(dataset, outputs, device)
            case "calibration":
                return Calibrations(dataset, device)
            case "agreement":
                return Agreements(dataset, candidates.teacher(settings.run, settings.teacher, dataset), view, device)
            case "categories":
                return Categories(_cityscapes(dataset, name))
            case "instances":
                return Instances(_cityscapes(dataset, name), device)
            case "sequences":
                return Sequences(dataset)
            case _:
                return Interval(dataset, settings.block, settings.resamples, settings.seed)

    return {name: made(name) for name in dict.fromkeys(settings.scores) if name != "iou"}


def _cityscapes(dataset: SegmentationDataset, name: str) -> Cityscapes:
    if not isinstance(dataset, Cityscapes):
        raise UserError(f"scores={name} are Cityscapes' own; {dataset.title()} has none, leave them out")
    return dataset


def _robustness(settings: EvaluateSettings, classes: int, look: Callable[..., Tensor], title: str) -> Finding:
    """mIoU of each corruption at each severity."""
    miou: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(settings.corruptions):
        for severity in settings.severities:
            matrices = look(corruption=Corruption(name, severity), progress=f"{title}, {name} {severity}")
            miou.setdefault(name, {})[str(severity)] = Scores.of(matrices.sum(0), classes).miou
    mean = sum(sum(each.values()) / len(each) for each in miou.values()) / len(miou)
    shown = " · ".join(f"{name} {' '.join(f'{100 * v:.2f}' for v in each.values())}" for name, each in miou.items())
    note = f"mIoU damaged {100 * mean:.2f} (severity {', '.join(map(str, settings.severities))}): {shown}"
    return Finding({"miou": miou, "mean": mean, "seed": settings.seed}, note)


def _show(
    scores: Scores, findings: dict[str, Finding], dataset: SegmentationDataset, settings: EvaluateSettings
) -> None:
    others = columns(findings)
    rows = [
        [name, _cell(iou, "absent"), *(_cell(values[i], "–") for values in others.values())]
        for i, (name, iou) in enumerate(zip(dataset.classes, scores.iou, strict=True))
    ]
    means = (_cell(mean_of(values), "–") for values in others.values())
    rows.append(["mean", _cell(scores.miou, "absent"), *means])
    notes = [
        f"class accuracy {100 * scores.class_accuracy:.2f} · pixel accuracy {100 * scores.pixel_accuracy:.2f}",
        *(finding.note for finding in findings.values()),
    ]
    title = f"{dataset.title()} {settings.split}, {len(dataset)} images, void {settings.void}"
    tables.show([["class", "IoU %", *others], *rows], settings.format, title)
    # A page wants a table to end before text begins, and a paper's notes must not be set.
    before = {"table": "", "markdown": "\n", "latex": "% "}[settings.format]
    for note in notes:
        print(f"{before}{note}")


def _cell(fraction: float, otherwise: str) -> str:
    return otherwise if math.isnan(fraction) else f"{100 * fraction:.2f}"


if __name__ == "__main__":
    launch(evaluate, "evaluate")
