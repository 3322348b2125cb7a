"""`python -m segkd.evaluate`: score a network on a split of a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt, StrictBool
from torch import Tensor

from segkd.builders.datasets import open_dataset
from segkd.config.renamed_values import refuse_renamed
from segkd.config.schema import (
    Accelerator,
    CheckClasses,
    DatasetOfRun,
    DatasetRoot,
    OptionalNetwork,
    Settings,
    Teacher,
    load_settings,
)
from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from segkd.data.coverage import warn_of_absent_classes
from segkd.data.identity import identify_data
from segkd.data.small_images import log_small_images
from segkd.errors import UserError
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
    format_percent,
)
from segkd.evaluate.output import print_scores, write_evaluation
from segkd.evaluate.protocol import Protocol
from segkd.evaluate.submission import SubmissionWriter
from segkd.metrics import Scores
from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import state_hash
from segkd.models.inference import Inferer
from segkd.runs.changed_data import warn_of_changed_data
from segkd.runs.compatibility import RENAMED_METRICS
from segkd.runs.load import load_chosen_network, load_teacher, resolve_dataset
from segkd.utils.devices import resolve_device
from segkd.utils.files import make_dir, sha256

MetricName = Literal[
    "iou",
    "boundary_iou",
    "trimap_iou",
    "calibration",
    "teacher_agreement",
    "category_iou",
    "instance_iou",
    "per_sequence",
    "bootstrap_ci",
]


class EvaluateSettings(Settings):
    """Settings of `python -m segkd.evaluate`."""

    run: Path | None = Field(description="folder of a finished run, or", json_schema_extra={"values": "DIR"})
    model: OptionalNetwork = Field(
        default=None,
        description="a network, with its weights in checkpoint=FILE",
        json_schema_extra={"values": "NAME"},
    )
    checkpoint: Path | None = Field(description="weights of the network", json_schema_extra={"values": "FILE"})
    teacher: Teacher = Field(
        description="the teacher of teacher_agreement; none: the run's own",
        json_schema_extra={"key": "model@teacher", "values": "NAME|none"},
    )
    dataset: DatasetOfRun = Field(description="the dataset to score on; null: the run's own")
    split: str = Field(description="split to score on", json_schema_extra={"values": "NAME"})
    check_classes: CheckClasses
    protocol: Annotated[Literal["standard", "espnet"], refuse_renamed({"usual": "standard"})] = Field(
        description="espnet: half-size input and upsampled classes, as its authors did on Cityscapes"
    )
    void: Literal["ignored", "counted"] = Field(
        description="counted: unlabeled pixels stay in, and all outputs of the network compete"
    )
    window: tuple[PositiveInt, PositiveInt] | None = Field(
        description="size of a sliding window, whose logits are averaged; null: the whole image"
    )
    overlap: float = Field(ge=0, lt=1, description="overlap of neighboring windows, as a fraction of their size")
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        description="input scales whose probabilities are averaged"
    )
    flip: StrictBool = Field(description="average over the mirrored image too")
    metrics: list[Annotated[MetricName, refuse_renamed(RENAMED_METRICS)]] = Field(description="metrics to report")
    bootstrap_block: PositiveInt = Field(description="consecutive frames that bootstrap_ci resamples together")
    bootstrap_samples: PositiveInt = Field(description="resamples of bootstrap_ci")
    corruptions: list[Literal[CORRUPTIONS]] = Field(description="also report mIoU on corrupted images")  # type: ignore[valid-type]
    severities: Annotated[list[Annotated[int, Field(ge=1, le=SEVERITIES)]], Field(min_length=1)] = Field(
        description="severities of the corruptions, from 1 to 5"
    )
    seed: int = Field(ge=0, lt=2**31, description="seed of corruptions and bootstrap")
    format: Literal["table", "markdown", "latex"] = Field(description="format of the printed table")
    output_dir: Path | None = Field(
        description="folder for evaluation.json; null: the run's folder, or a new one in runs/",
        json_schema_extra={"values": "DIR|null"},
    )
    submission_dir: Path | None = Field(
        description="folder for predictions as PNGs of label ids, as Cityscapes' server wants them",
        json_schema_extra={"values": "DIR|null"},
    )
    accelerator: Accelerator = Field(description="device to compute on")
    workers: int = Field(ge=0, description="loading processes")


def evaluate(cfg: DictConfig) -> float:
    """Score a network, write `evaluation.json`, print a table and, as the last line of stdout, the mIoU."""
    settings = load_settings(cfg, EvaluateSettings)
    dataset = open_dataset(resolve_dataset(settings.dataset, settings.run), settings.split)
    network, checkpoint = load_chosen_network(
        settings.run, settings.model, settings.checkpoint, dataset, settings.check_classes
    )
    protocol = _make_protocol(settings)
    inferer = protocol.make_inferer(dataset, network)
    metrics = make_metrics(settings, dataset, protocol, inferer)
    writers = [] if settings.submission_dir is None else [SubmissionWriter(settings.submission_dir, dataset)]
    directory = make_dir(settings.output_dir or settings.run or _name_folder())
    device, title = resolve_device(settings.accelerator), f"{dataset.display_name} {settings.split}"
    compute_matrices = partial(
        protocol.compute_matrices,
        network,
        dataset,
        inferer,
        seed=settings.seed,
        device=device,
        workers=settings.workers,
    )
    if settings.submission_dir is None:  # a split to submit has no labels
        warn_of_absent_classes(dataset)
    log_small_images(dataset, network.min_size, type(network).__name__)
    matrices = compute_matrices(callbacks=[*metrics.values(), *writers], progress=title)
    scores = Scores.from_confusion_matrix(matrices.sum(0), len(dataset.classes))
    if math.isnan(scores.miou):
        return _report_unlabeled(settings, len(dataset), title)
    results = {name: metric.compute(matrices) for name, metric in metrics.items()}
    if settings.corruptions:
        results["corruptions"] = _score_corruptions(settings, len(dataset.classes), compute_matrices, title)
    evaluation = {
        **scores.to_dict(dataset.classes),
        "confusion_matrix": matrices.sum(0).tolist(),
        "protocol": protocol.to_dict(dataset, network),
        **_describe_subject(settings, dataset, network, checkpoint),
        **{name: result.values for name, result in results.items()},
    }
    write_evaluation(directory / "evaluation.json", evaluation)
    if settings.run is not None and isinstance(settings.dataset, DatasetRoot) and settings.dataset.path is None:
        warn_of_changed_data(settings.run, settings.split, title, evaluation["data"])
    print_scores(
        scores, results, dataset.classes, settings.format, f"{title}, {len(dataset)} images, void {settings.void}"
    )
    print(f"mIoU {100 * scores.miou:.2f}")
    return scores.miou


def _make_protocol(settings: EvaluateSettings) -> Protocol:
    return Protocol(settings.protocol, settings.void, settings.window, settings.overlap, settings.scales, settings.flip)


def _name_folder() -> Path:
    return Path("runs") / f"evaluation_{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def make_metrics(
    settings: EvaluateSettings, dataset: SegmentationDataset, protocol: Protocol, inferer: Inferer
) -> dict[str, ReportedMetric]:
    """Return the chosen metrics besides IoU, in the given order, each once.

    Raises:
        UserError: a metric of Cityscapes is chosen for another dataset, or there is no teacher to agree with.
    """
    device, num_outputs = resolve_device(settings.accelerator), len(dataset.classes) + protocol.void_competes

    def make_metric(name: MetricName) -> ReportedMetric:
        match name:
            case "boundary_iou":
                return BoundaryReport(dataset, device)
            case "trimap_iou":
                return TrimapReport(dataset, num_outputs, device)
            case "calibration":
                return CalibrationReport(dataset, device)
            case "teacher_agreement":
                teacher = load_teacher(settings.run, settings.teacher, dataset, settings.check_classes)
                return AgreementReport(dataset, teacher, inferer, device)
            case "category_iou":
                return CategoryReport(_require_cityscapes(dataset, name))
            case "instance_iou":
                return InstanceIoUReport(_require_cityscapes(dataset, name), device)
            case "per_sequence":
                return PerSequence(dataset)
            case _:
                return BootstrapInterval(dataset, settings.bootstrap_block, settings.bootstrap_samples, settings.seed)

    return {name: make_metric(name) for name in dict.fromkeys(settings.metrics) if name != "iou"}


def _report_unlabeled(settings: EvaluateSettings, num_images: int, title: str) -> float:
    """Report that no pixel is labeled, which is no fault if label files were written; return NaN."""
    if settings.submission_dir is None:
        raise UserError(f"{title} has no labeled pixel to score; choose another split")
    print(f"{num_images} label files in {settings.submission_dir}; no labeled pixel, so no score")
    return math.nan


def _describe_subject(
    settings: EvaluateSettings, dataset: SegmentationDataset, network: SegmentationModel, checkpoint: Path
) -> dict[str, Any]:
    return {
        "images": len(dataset),
        "dataset": dataset.display_name,
        "data": identify_data(dataset),
        "split": settings.split,
        "classes": list(dataset.classes),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256(checkpoint) if checkpoint.is_file() else state_hash(network),
    }


def _require_cityscapes(dataset: SegmentationDataset, metric: str) -> Cityscapes:
    if not isinstance(dataset, Cityscapes):
        raise UserError(
            f"{metric} is a metric of Cityscapes and does not apply to {dataset.display_name}; leave it out"
        )
    return dataset


def _score_corruptions(
    settings: EvaluateSettings, num_classes: int, compute_matrices: Callable[..., Tensor], title: str
) -> MetricResult:
    """Return the mIoU under each corruption at each severity."""
    miou: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(settings.corruptions):
        for severity in settings.severities:
            matrices = compute_matrices(corruption=Corruption(name, severity), progress=f"{title}, {name} {severity}")
            miou.setdefault(name, {})[str(severity)] = Scores.from_confusion_matrix(matrices.sum(0), num_classes).miou
    mean = sum(sum(values.values()) / len(values) for values in miou.values()) / len(miou)
    listed = " · ".join(f"{name} {' '.join(map(format_percent, values.values()))}" for name, values in miou.items())
    severities = ", ".join(map(str, settings.severities))
    summary = f"mIoU on corrupted images {format_percent(mean)} (severity {severities}): {listed}"
    return MetricResult({"miou": miou, "mean": mean, "seed": settings.seed}, summary)
