"""Metrics besides IoU. Each is updated with every prediction and gets all confusion matrices at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.errors import UserError
from segkd.evaluate.loop import Prediction
from segkd.metrics import Scores
from segkd.metrics.agreement import Agreement
from segkd.metrics.bootstrap import compute_bootstrap_interval
from segkd.metrics.boundary import BoundaryIoU, TrimapConfusion, compute_boundary_width
from segkd.metrics.calibration import Calibration
from segkd.metrics.cityscapes import CATEGORIES, InstanceIoU, compute_instance_iou, to_category_matrix
from segkd.metrics.confusion import nan_to_none
from segkd.models.base import SegmentationModel
from segkd.models.inference import Inferer


class MetricResult(NamedTuple):
    """The result of one metric."""

    values: dict[str, Any]
    """For `evaluation.json`."""
    summary: str
    """One line for the terminal."""
    per_class: tuple[str, list[float]] | None = None
    """A column title and a fraction per class."""


class ReportedMetric(ABC):
    """A metric of `segkd.evaluate`."""

    def __call__(self, prediction: Prediction) -> None:  # noqa: B027  metrics of confusion matrices do not need it
        """Update the metric with the prediction for one image."""

    @abstractmethod
    def compute(self, matrices: Tensor) -> MetricResult:
        """Return the result, given the confusion matrix of each image: N K K, with void last if it competes."""


class BoundaryReport(ReportedMetric):
    """Boundary IoU."""

    def __init__(self, dataset: SegmentationDataset, device: torch.device) -> None:
        self.classes = dataset.classes
        self.metric = BoundaryIoU(len(dataset.classes)).to(device)
        self.widths: set[int] = set()

    def __call__(self, prediction: Prediction) -> None:
        """Count the pixels near the contours of each class."""
        self.widths.add(compute_boundary_width((prediction.target.shape[-2], prediction.target.shape[-1])))
        self.metric.update(prediction.predicted, prediction.target)

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return `miou`, `iou` per class, and the boundary `widths` in pixels."""
        iou = self.metric.compute()
        mean, widths = iou.nanmean().item(), sorted(self.widths)
        values = {"miou": nan_to_none(mean), "widths": widths, "iou": _to_json(self.classes, iou.tolist())}
        pixels = "–".join(str(width) for width in sorted({widths[0], widths[-1]}))
        summary = f"boundary IoU {format_percent(mean)} ({pixels} px)"
        return MetricResult(values, summary, ("boundary IoU %", iou.tolist()))


class TrimapReport(ReportedMetric):
    """mIoU near label boundaries."""

    def __init__(self, dataset: SegmentationDataset, num_outputs: int, device: torch.device) -> None:
        self.num_classes = len(dataset.classes)
        self.metric = TrimapConfusion(num_outputs).to(device)

    def __call__(self, prediction: Prediction) -> None:
        """Count the pixels near label boundaries."""
        self.metric.update(prediction.predicted, prediction.target)

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return the `miou` at each width."""
        mious = [Scores.from_confusion_matrix(matrix, self.num_classes).miou for matrix in self.metric.compute()]
        by_width = dict(zip(self.metric.widths, mious, strict=True))
        values = {"miou": {str(width): nan_to_none(miou) for width, miou in by_width.items()}}
        listed = " · ".join(f"{width} px {format_percent(miou)}" for width, miou in by_width.items())
        return MetricResult(values, f"trimap mIoU {listed}")


class CalibrationReport(ReportedMetric):
    """ECE, NLL and Brier score over the dataset's classes."""

    def __init__(self, dataset: SegmentationDataset, device: torch.device) -> None:
        self.metric = Calibration(len(dataset.classes)).to(device)

    def __call__(self, prediction: Prediction) -> None:
        """Count confidences and errors of the labeled pixels."""
        self.metric.update(prediction.logits, prediction.target)

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return `ece`, `nll`, `brier`, and the number of `bins`."""
        ece, nll, brier = self.metric.compute()
        values = {
            "ece": nan_to_none(ece),
            "nll": nan_to_none(nll),
            "brier": nan_to_none(brier),
            "bins": self.metric.bins,
        }
        return MetricResult(values, f"ECE {format_percent(ece)} · NLL {nll:.4f} · Brier {brier:.4f}")


class AgreementReport(ReportedMetric):
    """Agreement with a teacher that predicts the same images in the same inference mode."""

    def __init__(
        self, dataset: SegmentationDataset, teacher: SegmentationModel, inferer: Inferer, device: torch.device
    ) -> None:
        self.teacher, self.inferer = teacher.to(device).eval(), inferer
        self.metric = Agreement(len(dataset.classes)).to(device)

    def __call__(self, prediction: Prediction) -> None:
        """Predict the image with the teacher, and compare."""
        teacher_logits = self.inferer(self.teacher, prediction.images)
        self.metric.update(prediction.logits, teacher_logits, prediction.target)

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return the fields of `AgreementScores`."""
        scores = self.metric.compute()
        values = {name: nan_to_none(value) for name, value in scores._asdict().items()}
        return MetricResult(
            values,
            f"agrees with the teacher on {format_percent(scores.agreement)} % of pixels · KL {scores.divergence:.4f} · "
            f"only the teacher is right on {format_percent(scores.only_teacher_right)} %, "
            f"only the student on {format_percent(scores.only_student_right)} %",
        )


class CategoryReport(ReportedMetric):
    """IoU of Cityscapes' categories."""

    def __init__(self, dataset: Cityscapes) -> None:
        self.classes = dataset.classes

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return `miou` and `iou` over the categories."""
        matrix = to_category_matrix(matrices.sum(0), self.classes)
        matrix[len(CATEGORIES) :] = 0  # the official scorer counts no false positives on unlabeled pixels
        scores = Scores.from_confusion_matrix(matrix, len(CATEGORIES))
        listed = " · ".join(f"{name} {format_percent(iou)}" for name, iou in zip(CATEGORIES, scores.iou, strict=True))
        values = {"miou": nan_to_none(scores.miou), "iou": _to_json(tuple(CATEGORIES), scores.iou)}
        return MetricResult(values, f"category IoU {format_percent(scores.miou)}: {listed}")


class InstanceIoUReport(ReportedMetric):
    """Instance-level IoU (iIoU) of Cityscapes' classes and categories that have instances."""

    def __init__(self, dataset: Cityscapes, device: torch.device) -> None:
        self.dataset = dataset
        self.metric = InstanceIoU(dataset.classes).to(device)

    def __call__(self, prediction: Prediction) -> None:
        """Count hits and misses of each instance."""
        instances = torch.from_numpy(self.dataset.load_instances(prediction.index))[None]
        self.metric.update(prediction.predicted, instances.to(prediction.predicted.device))

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return `miou` and `iou` of the classes, `category_miou` and `category_iou` of the categories."""
        classes, matrix = self.dataset.classes, matrices.sum(0)
        found, missed, found_category, missed_category = (part.cpu() for part in self.metric.compute())
        class_iou = compute_instance_iou(found, missed, matrix, classes)
        category_matrix = to_category_matrix(matrix, classes)
        category_iou = compute_instance_iou(found_category, missed_category, category_matrix, tuple(CATEGORIES))
        means = [compute_nanmean([*iou.values()]) for iou in (class_iou, category_iou)]
        values = {
            "miou": nan_to_none(means[0]), "iou": {name: nan_to_none(v) for name, v in class_iou.items()},
            "category_miou": nan_to_none(means[1]), "category_iou": {name: nan_to_none(v) for name, v in category_iou.items()},
        }  # fmt: skip
        column = [class_iou.get(name, float("nan")) for name in classes]
        summary = f"iIoU {format_percent(means[0])} · category iIoU {format_percent(means[1])}"
        return MetricResult(values, summary, ("iIoU %", column))


class PerSequence(ReportedMetric):
    """The scores of each sequence."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return the number of `images` and the scores of each sequence."""
        sequences = list_sequences(self.dataset)
        values, listed = {}, []
        for name in dict.fromkeys(sequences):
            mask = torch.tensor([sequence == name for sequence in sequences])
            scores = Scores.from_confusion_matrix(matrices[mask].sum(0), len(self.dataset.classes))
            values[name] = {"images": int(mask.sum()), **scores.to_dict(self.dataset.classes)}
            listed.append(f"{name} {format_percent(scores.miou)} ({int(mask.sum())} images)")
        return MetricResult(values, f"mIoU by sequence: {' · '.join(listed)}")


class BootstrapInterval(ReportedMetric):
    """Confidence interval of the mIoU, by a bootstrap of blocks of frames.

    Raises:
        UserError: no sequence is longer than a block, so resampling would change nothing.
    """

    def __init__(self, dataset: SegmentationDataset, block: int, bootstrap_samples: int, seed: int) -> None:
        longest = max(Counter(list_sequences(dataset)).values())
        if longest <= block:
            cure = "give a smaller bootstrap_block=N, 1 if images are not video frames"
            raise UserError(
                f"bootstrap_ci resamples blocks of {block} frames, and the longest sequence of {dataset.display_name} "
                f"{dataset.split} has {longest}; {'leave it out' if longest == 1 else cure}"
            )
        self.dataset = dataset
        self.block, self.bootstrap_samples, self.seed = block, bootstrap_samples, seed

    def compute(self, matrices: Tensor) -> MetricResult:
        """Return the interval of the `miou`, its `level`, and the options of the bootstrap."""
        sequences = list_sequences(self.dataset)
        low, high = compute_bootstrap_interval(
            matrices, len(self.dataset.classes), sequences, self.block, self.bootstrap_samples, self.seed
        )
        values = {"miou": [nan_to_none(low), nan_to_none(high)], "level": 0.95}
        options = {"block": self.block, "resamples": self.bootstrap_samples, "seed": self.seed}
        interval = f"{format_percent(low)} to {format_percent(high)}"
        return MetricResult({**values, **options}, f"mIoU, 95 % interval {interval} (blocks of {self.block} frames)")


def list_sequences(dataset: SegmentationDataset) -> list[str]:
    """Return the sequence of each image."""
    return [dataset.get_sequence(i) for i in range(len(dataset))]


def compute_nanmean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN."""
    return torch.tensor(values, dtype=torch.float64).nanmean().item()


def format_percent(fraction: float) -> str:
    """Return a fraction in percent, with two decimals."""
    return f"{100 * fraction:.2f}"


def _to_json(names: Sequence[str], values: Sequence[float]) -> Mapping[str, float | None]:
    return {name: nan_to_none(value) for name, value in zip(names, values, strict=True)}
