"""`python -m segkd.evaluate`: the scores of a network on a split of a data set."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt, StrictBool
from torch import Tensor

from segkd import build, candidates, devices, files, scoring, tables
from segkd.cli import launch
from segkd.config import Data, Settings, Target, validate
from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from segkd.errors import UserError
from segkd.evaluation import Observer, confusion_matrices
from segkd.label_files import LabelFiles
from segkd.metrics import Scores
from segkd.models.base import SegmentationModel
from segkd.models.weights import fingerprint
from segkd.views import View, halved, view_of, whole

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
    view = _view(settings, dataset, network)
    wanted = _wanted(settings, dataset, view)
    written = [] if settings.label_files is None else [LabelFiles(settings.label_files, dataset)]
    directory = files.made(
        settings.output_dir or settings.run or Path("runs") / f"evaluation_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    )
    matrices = _matrices(settings, dataset, network, view, [*wanted.values(), *written])
    matrix = matrices.sum(0)
    scores = Scores.of(matrix, len(dataset.classes))
    if math.isnan(scores.miou):
        if written:
            print(f"{len(dataset)} label files in {settings.label_files}; no labelled pixel, so no score")
            return math.nan
        raise UserError(f"{dataset.title()} {settings.split} has no labelled pixel to score; choose another split")
    findings = {name: score.result(matrices) for name, score in wanted.items()}
    if settings.corruptions:
        findings["corruptions"] = _robustness(settings, dataset, network, view)
    facts = {
        **_facts(scores, matrix, settings, dataset, network, checkpoint),
        **{name: finding.facts for name, finding in findings.items()},
    }
    _say_what_goes(directory / "evaluation.json", facts)
    with files.whole(directory / "evaluation.json") as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    _show(scores, findings, dataset, settings)
    print(f"mIoU {100 * scores.miou:.2f}")
    return scores.miou


def _say_what_goes(file: Path, facts: dict[str, Any]) -> None:
    """On stderr, where the scores of something else are replaced: runs are compared by what lies there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(file.read_text())
        if any(before[key] != facts[key] for key in ("dataset", "split", "images", "protocol")):
            print(
                f"segkd: {file} held scores of {before['dataset']} {before['split']}; output_dir=DIR keeps both",
                file=sys.stderr,
            )


def _facts(
    scores: Scores,
    matrix: Tensor,
    settings: EvaluateSettings,
    dataset: SegmentationDataset,
    network: SegmentationModel,
    checkpoint: Path,
) -> dict[str, Any]:
    """What evaluation.json always holds."""
    return {
        **scores.facts(dataset.classes),
        "confusion_matrix": matrix.tolist(),
        "protocol": _protocol(settings, dataset, network),
        "images": len(dataset),
        "dataset": dataset.title(),
        "split": settings.split,
        "classes": list(dataset.classes),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": files.sha256(checkpoint) if checkpoint.is_file() else fingerprint(network),
    }


def _view(settings: EvaluateSettings, dataset: SegmentationDataset, network: SegmentationModel) -> View:
    """How the network looks at an image."""
    view = view_of(settings.window, settings.overlap, settings.scales, settings.flip)
    if settings.protocol == "espnet":
        if not isinstance(dataset, Cityscapes):
            raise UserError(
                f"protocol=espnet is Mehta et al.'s way on Cityscapes, not on {dataset.title()}; leave it out "
                "(on CamVid their figures are those of void=counted)"
            )
        if view is not whole or settings.void != "ignored":
            raise UserError(
                "protocol=espnet says how to look and what void does; leave window, scales, flip and void out"
            )
        return halved
    if settings.window is not None and min(settings.window) < network.smallest:
        raise UserError(
            f"window={list(settings.window)} is less than the {network.smallest} pixels that {type(network).__name__} takes"
        )
    return view


def _wanted(settings: EvaluateSettings, dataset: SegmentationDataset, view: View) -> dict[str, scoring.Score]:
    """The chosen scores besides IoU, in their order, each once.

    Raises:
        UserError: Cityscapes' own scores of another data set, or agreement without a teacher.
    """
    device, outputs = devices.device(settings.accelerator), len(dataset.classes) + _void_competes(settings)

    def made(name: ScoreName) -> scoring.Score:
        match name:
            case "boundary":
                return scoring.Boundary(dataset, device)
            case "trimap":
                return scoring.Trimap(dataset, outputs, device)
            case "calibration":
                return scoring.Calibrations(dataset, device)
            case "agreement":
                return scoring.Agreements(
                    dataset, candidates.teacher(settings.run, settings.teacher, dataset), view, device
                )
            case "categories":
                return scoring.Categories(_cityscapes(dataset, name))
            case "instances":
                return scoring.Instances(_cityscapes(dataset, name), device)
            case "sequences":
                return scoring.Sequences(dataset)
            case _:
                return scoring.Interval(dataset, settings.block, settings.resamples, settings.seed)

    return {name: made(name) for name in dict.fromkeys(settings.scores) if name != "iou"}


def _cityscapes(dataset: SegmentationDataset, name: str) -> Cityscapes:
    if not isinstance(dataset, Cityscapes):
        raise UserError(f"scores={name} are Cityscapes' own; {dataset.title()} has none, leave them out")
    return dataset


def _void_competes(settings: EvaluateSettings) -> bool:
    """Whether a network may say void."""
    return settings.void == "counted" or settings.protocol == "espnet"


def _matrices(
    settings: EvaluateSettings,
    dataset: SegmentationDataset,
    network: SegmentationModel,
    view: View,
    observers: list[Observer],
    corruption: Corruption | None = None,
    what: str = "",
) -> Tensor:
    """The confusion matrix of each image, as the protocol has it."""
    matrices = confusion_matrices(
        network,
        dataset,
        count_void=_void_competes(settings),
        view=view,
        observers=observers,
        corruption=corruption,
        seed=settings.seed,
        device=devices.device(settings.accelerator),
        workers=settings.workers,
        progress=f"{dataset.title()} {settings.split}{what}",
    )
    if settings.protocol == "espnet":
        matrices[:, -1] = 0  # the official scorer lets a network say void, but nothing counts where the label is void
    return matrices


def _robustness(
    settings: EvaluateSettings, dataset: SegmentationDataset, network: SegmentationModel, view: View
) -> scoring.Finding:
    """mIoU of each corruption at each severity."""
    miou: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(settings.corruptions):
        for severity in settings.severities:
            matrices = _matrices(
                settings, dataset, network, view, [], Corruption(name, severity), f", {name} {severity}"
            )
            score = Scores.of(matrices.sum(0), len(dataset.classes)).miou
            miou.setdefault(name, {})[str(severity)] = score
    mean = sum(sum(each.values()) / len(each) for each in miou.values()) / len(miou)
    shown = " · ".join(f"{name} {' '.join(f'{100 * v:.2f}' for v in each.values())}" for name, each in miou.items())
    note = f"mIoU damaged {100 * mean:.2f} (severity {', '.join(map(str, settings.severities))}): {shown}"
    return scoring.Finding({"miou": miou, "mean": mean, "seed": settings.seed}, note)


def _protocol(settings: EvaluateSettings, dataset: SegmentationDataset, network: SegmentationModel) -> dict[str, Any]:
    """How the figures were made."""
    scales = "single scale" if settings.scales == [1] else f"scales {', '.join(f'{s:g}' for s in settings.scales)}"
    window = settings.window
    looks = "whole image" if window is None else f"windows of {window[0]}×{window[1]}, overlap {settings.overlap:g}"
    enlarged = f"enlarged bilinearly to the label's size, align_corners={network.align_corners}"
    if settings.protocol == "espnet":
        looks = "whole image at half its size"
        enlarged = f"enlarged bilinearly to the input's size, align_corners={network.align_corners}; classes doubled by nearest neighbour"
    return {
        "void": settings.void,
        "competing": "all outputs of the network" if _void_competes(settings) else "the data set's classes",
        "input": f"{looks}, {scales}, {'flip' if settings.flip else 'no flip'}",
        "logits": enlarged,
        "mean_over": f"{len(dataset.classes)} classes, from one confusion matrix over all images (rows = truth)",
    }


def _show(
    scores: Scores, findings: dict[str, scoring.Finding], dataset: SegmentationDataset, settings: EvaluateSettings
) -> None:
    others = scoring.columns(findings)
    rows = [
        [name, _cell(iou, "absent"), *(_cell(values[i], "–") for values in others.values())]
        for i, (name, iou) in enumerate(zip(dataset.classes, scores.iou, strict=True))
    ]
    means = (_cell(scoring.mean_of(values), "–") for values in others.values())
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
