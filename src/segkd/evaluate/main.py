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

from segkd.build.datasets import open_dataset
from segkd.config.schema import DatasetNode, Settings, SpecNode, load_settings
from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from segkd.errors import UserError
from segkd.evaluate.inference import Inferer
from segkd.evaluate.metrics_report import (
    AgreementReport,
    BootstrapInterval,
    BoundaryReport,
    CalibrationReport,
    CategoryReport,
    InstanceIoUReport,
    MetricResult,
    PerSequence,
    ReportedMetric,
    TrimapReport,
    make_columns,
    mean_or_none,
)
from segkd.evaluate.protocol import Protocol
from segkd.evaluate.submission import SubmissionWriter
from segkd.metrics import Scores
from segkd.models.checkpoint_io import state_hash
from segkd.runs.load import dataset_spec, load_network, load_teacher
from segkd.utils.devices import resolve_device
from segkd.utils.files import atomic_write, make_dir, sha256
from segkd.utils.tables import print_table

MetricName = Literal[
    "iou", "boundary", "trimap", "calibration", "agreement", "categories", "instances", "sequences", "interval"
]


class EvaluateSettings(Settings):
    """`python -m segkd.evaluate`."""

    run: Path | None
    model: SpecNode | None = None
    checkpoint: Path | None
    teacher: SpecNode
    dataset: DatasetNode
    split: str
    protocol: Literal["usual", "espnet"]
    void: Literal["ignored", "counted"]
    window: tuple[PositiveInt, PositiveInt] | None
    overlap: float = Field(ge=0, lt=1)
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    flip: StrictBool
    scores: list[MetricName]
    bootstrap_block: PositiveInt
    bootstrap_samples: PositiveInt
    corruptions: list[Literal[CORRUPTIONS]]  # type: ignore[valid-type]
    severities: Annotated[list[Annotated[int, Field(ge=1, le=SEVERITIES)]], Field(min_length=1)]
    seed: int = Field(ge=0, lt=2**31)
    format: Literal["table", "markdown", "latex"]
    output_dir: Path | None
    submission_dir: Path | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    workers: int = Field(ge=0)


def evaluate(cfg: DictConfig) -> float:
    """Score a network, write `evaluation.json`, print a table and, as the last line of stdout, the mIoU."""
    settings = load_settings(cfg, EvaluateSettings)
    dataset = open_dataset(dataset_spec(settings.dataset, settings.run), settings.split)
    network, checkpoint = load_network(settings.run, settings.model, settings.checkpoint, dataset)
    protocol = Protocol(
        settings.protocol, settings.void, settings.window, settings.overlap, settings.scales, settings.flip
    )
    view = protocol.view(dataset, network)
    wanted = _make_metrics(settings, dataset, protocol, view)
    written = [] if settings.submission_dir is None else [SubmissionWriter(settings.submission_dir, dataset)]
    directory = make_dir(
        settings.output_dir or settings.run or Path("runs") / f"evaluation_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    )
    device, title = resolve_device(settings.accelerator), f"{dataset.display_name()} {settings.split}"
    look = partial(
        protocol.matrices, network, dataset, view, seed=settings.seed, device=device, workers=settings.workers
    )
    matrices = look(observers=[*wanted.values(), *written], progress=title)
    matrix = matrices.sum(0)
    scores = Scores.of(matrix, len(dataset.classes))
    if math.isnan(scores.miou):
        if written:
            print(f"{len(dataset)} label files in {settings.submission_dir}; no labelled pixel, so no score")
            return math.nan
        raise UserError(
            f"{dataset.display_name()} {settings.split} has no labelled pixel to score; choose another split"
        )
    findings = {name: score.result(matrices) for name, score in wanted.items()}
    if settings.corruptions:
        findings["corruptions"] = _robustness(settings, len(dataset.classes), look, title)
    facts = {
        **scores.facts(dataset.classes),
        "confusion_matrix": matrix.tolist(),
        "protocol": protocol.facts(dataset, network),
        "images": len(dataset),
        "dataset": dataset.display_name(),
        "split": settings.split,
        "classes": list(dataset.classes),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256(checkpoint) if checkpoint.is_file() else state_hash(network),
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
    with atomic_write(file) as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _make_metrics(
    settings: EvaluateSettings, dataset: SegmentationDataset, protocol: Protocol, view: Inferer
) -> dict[str, ReportedMetric]:
    """The chosen scores besides IoU, in their order, each once.

    Raises:
        UserError: Cityscapes' own scores of another data set, or agreement without a teacher.
    """
    device, outputs = resolve_device(settings.accelerator), len(dataset.classes) + protocol.void_competes

    def made(name: MetricName) -> ReportedMetric:
        match name:
            case "boundary":
                return BoundaryReport(dataset, device)
            case "trimap":
                return TrimapReport(dataset, outputs, device)
            case "calibration":
                return CalibrationReport(dataset, device)
            case "agreement":
                return AgreementReport(dataset, load_teacher(settings.run, settings.teacher, dataset), view, device)
            case "categories":
                return CategoryReport(_cityscapes(dataset, name))
            case "instances":
                return InstanceIoUReport(_cityscapes(dataset, name), device)
            case "sequences":
                return PerSequence(dataset)
            case _:
                return BootstrapInterval(dataset, settings.bootstrap_block, settings.bootstrap_samples, settings.seed)

    return {name: made(name) for name in dict.fromkeys(settings.scores) if name != "iou"}


def _cityscapes(dataset: SegmentationDataset, name: str) -> Cityscapes:
    if not isinstance(dataset, Cityscapes):
        raise UserError(f"scores={name} are Cityscapes' own; {dataset.display_name()} has none, leave them out")
    return dataset


def _robustness(settings: EvaluateSettings, classes: int, look: Callable[..., Tensor], title: str) -> MetricResult:
    """mIoU of each corruption at each severity."""
    miou: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(settings.corruptions):
        for severity in settings.severities:
            matrices = look(corruption=Corruption(name, severity), progress=f"{title}, {name} {severity}")
            miou.setdefault(name, {})[str(severity)] = Scores.of(matrices.sum(0), classes).miou
    mean = sum(sum(each.values()) / len(each) for each in miou.values()) / len(miou)
    shown = " · ".join(f"{name} {' '.join(f'{100 * v:.2f}' for v in each.values())}" for name, each in miou.items())
    note = f"mIoU damaged {100 * mean:.2f} (severity {', '.join(map(str, settings.severities))}): {shown}"
    return MetricResult({"miou": miou, "mean": mean, "seed": settings.seed}, note)


def _show(
    scores: Scores, findings: dict[str, MetricResult], dataset: SegmentationDataset, settings: EvaluateSettings
) -> None:
    others = make_columns(findings)
    rows = [
        [name, _cell(iou, "absent"), *(_cell(values[i], "–") for values in others.values())]
        for i, (name, iou) in enumerate(zip(dataset.classes, scores.iou, strict=True))
    ]
    means = (_cell(mean_or_none(values), "–") for values in others.values())
    rows.append(["mean", _cell(scores.miou, "absent"), *means])
    notes = [
        f"class accuracy {100 * scores.class_accuracy:.2f} · pixel accuracy {100 * scores.pixel_accuracy:.2f}",
        *(finding.note for finding in findings.values()),
    ]
    title = f"{dataset.display_name()} {settings.split}, {len(dataset)} images, void {settings.void}"
    print_table([["class", "IoU %", *others], *rows], settings.format, title)
    # A page wants a table to end before text begins, and a paper's notes must not be set.
    before = {"table": "", "markdown": "\n", "latex": "% "}[settings.format]
    for note in notes:
        print(f"{before}{note}")


def _cell(fraction: float, otherwise: str) -> str:
    return otherwise if math.isnan(fraction) else f"{100 * fraction:.2f}"
