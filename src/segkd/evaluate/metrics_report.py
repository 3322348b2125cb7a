"""Scores by name. Each hears every answer and, at the end, gets the confusion matrices of all images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.errors import UserError
from segkd.evaluate.inference import Inferer
from segkd.evaluate.loop import Prediction
from segkd.metrics import Scores
from segkd.metrics.agreement import Agreement
from segkd.metrics.bootstrap import bootstrap_interval
from segkd.metrics.boundary import BoundaryIoU, TrimapConfusion, boundary_width
from segkd.metrics.calibration import Calibration
from segkd.metrics.cityscapes import CATEGORIES, InstanceIoU, compute_instance_iou, to_category_matrix
from segkd.metrics.confusion import nan_to_none
from segkd.models.base import SegmentationModel


class MetricResult(NamedTuple):
    """What a score found."""

    facts: dict[str, Any]
    """For JSON."""
    note: str
    """For people, one line."""
    column: tuple[str, list[float]] | None = None
    """A title and a fraction for each class."""


class ReportedMetric(ABC):
    """One kind of score."""

    def __call__(self, answer: Prediction) -> None:  # noqa: B027
        """Hear what the network says of an image; what follows from confusion matrices need not."""

    @abstractmethod
    def result(self, matrices: Tensor) -> MetricResult:
        """The finding, with the confusion matrix of each image, N K K or with void as last."""


class BoundaryReport(ReportedMetric):
    """Boundary IoU."""

    def __init__(self, dataset: SegmentationDataset, device: torch.device) -> None:
        self.classes = dataset.classes
        self.metric = BoundaryIoU(len(dataset.classes)).to(device)
        self.widths: set[int] = set()

    def __call__(self, answer: Prediction) -> None:
        self.widths.add(boundary_width((answer.target.shape[-2], answer.target.shape[-1])))
        self.metric.update(answer.predicted, answer.target)

    def result(self, matrices: Tensor) -> MetricResult:
        iou = self.metric.compute()
        mean, widths = iou.nanmean().item(), sorted(self.widths)
        facts = {"miou": nan_to_none(mean), "widths": widths, "iou": _named(self.classes, iou.tolist())}
        pixels = "–".join(str(width) for width in sorted({widths[0], widths[-1]}))
        return MetricResult(facts, f"boundary IoU {_percent(mean)} ({pixels} px)", ("boundary IoU %", iou.tolist()))


class TrimapReport(ReportedMetric):
    """mIoU near changes of the label."""

    def __init__(self, dataset: SegmentationDataset, size: int, device: torch.device) -> None:
        self.classes = len(dataset.classes)
        self.metric = TrimapConfusion(size).to(device)

    def __call__(self, answer: Prediction) -> None:
        self.metric.update(answer.predicted, answer.target)

    def result(self, matrices: Tensor) -> MetricResult:
        scores = [Scores.of(matrix, self.classes).miou for matrix in self.metric.compute()]
        facts = {"miou": {str(w): nan_to_none(score) for w, score in zip(self.metric.widths, scores, strict=True)}}
        shown = " · ".join(f"{w} px {_percent(score)}" for w, score in zip(self.metric.widths, scores, strict=True))
        return MetricResult(facts, f"trimap mIoU {shown}")


class CalibrationReport(ReportedMetric):
    """ECE, NLL and Brier score of the data set's classes."""

    def __init__(self, dataset: SegmentationDataset, device: torch.device) -> None:
        self.metric = Calibration(len(dataset.classes)).to(device)

    def __call__(self, answer: Prediction) -> None:
        self.metric.update(answer.logits, answer.target)

    def result(self, matrices: Tensor) -> MetricResult:
        ece, nll, brier = self.metric.compute()
        facts = {
            "ece": nan_to_none(ece),
            "nll": nan_to_none(nll),
            "brier": nan_to_none(brier),
            "bins": self.metric.bins,
        }
        return MetricResult(facts, f"ECE {_percent(ece)} · NLL {nll:.4f} · Brier {brier:.4f}")


class AgreementReport(ReportedMetric):
    """The network against its teacher, who looks at the same image in the same way."""

    def __init__(
        self, dataset: SegmentationDataset, teacher: SegmentationModel, view: Inferer, device: torch.device
    ) -> None:
        self.teacher, self.view = teacher.to(device).eval(), view
        self.metric = Agreement(len(dataset.classes)).to(device)

    def __call__(self, answer: Prediction) -> None:
        self.metric.update(answer.logits, self.view(self.teacher, answer.images), answer.target)

    def result(self, matrices: Tensor) -> MetricResult:
        agreed = self.metric.compute()
        facts = {name: nan_to_none(value) for name, value in agreed._asdict().items()}
        return MetricResult(
            facts,
            f"agrees with the teacher on {_percent(agreed.agreement)} % of pixels · KL {agreed.divergence:.4f} · "
            f"only the teacher is right on {_percent(agreed.only_teacher_right)} %, "
            f"only the student on {_percent(agreed.only_student_right)} %",
        )


class CategoryReport(ReportedMetric):
    """IoU of Cityscapes' categories."""

    def __init__(self, dataset: Cityscapes) -> None:
        self.classes = dataset.classes

    def result(self, matrices: Tensor) -> MetricResult:
        scores = Scores.of(
            _official(to_category_matrix(matrices.sum(0), self.classes), len(CATEGORIES)), len(CATEGORIES)
        )
        each = dict(zip(CATEGORIES, scores.iou, strict=True))
        shown = " · ".join(f"{name} {_percent(iou)}" for name, iou in each.items())
        facts = {"miou": nan_to_none(scores.miou), "iou": _named(tuple(each), scores.iou)}
        return MetricResult(facts, f"category IoU {_percent(scores.miou)}: {shown}")


class InstanceIoUReport(ReportedMetric):
    """iIoU of Cityscapes' classes and categories that have instances."""

    def __init__(self, dataset: Cityscapes, device: torch.device) -> None:
        self.dataset = dataset
        self.metric = InstanceIoU(dataset.classes).to(device)

    def __call__(self, answer: Prediction) -> None:
        instances = torch.from_numpy(self.dataset.instances(answer.index))[None]
        self.metric.update(answer.predicted, instances.to(answer.predicted.device))

    def result(self, matrices: Tensor) -> MetricResult:
        classes, matrix = self.dataset.classes, matrices.sum(0)
        found, missed, found_category, missed_category = (part.cpu() for part in self.metric.compute())
        of_class = compute_instance_iou(found, missed, matrix, classes)
        grouped = to_category_matrix(matrix, classes)
        of_category = compute_instance_iou(found_category, missed_category, grouped, tuple(CATEGORIES))
        means = [mean_or_none([*each.values()]) for each in (of_class, of_category)]
        facts = {
            "miou": nan_to_none(means[0]), "iou": {name: nan_to_none(v) for name, v in of_class.items()},
            "category_miou": nan_to_none(means[1]), "category_iou": {name: nan_to_none(v) for name, v in of_category.items()},
        }  # fmt: skip
        column = [of_class.get(name, float("nan")) for name in classes]
        return MetricResult(
            facts, f"iIoU {_percent(means[0])} · category iIoU {_percent(means[1])}", ("iIoU %", column)
        )


class PerSequence(ReportedMetric):
    """The scores of each video for itself."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def result(self, matrices: Tensor) -> MetricResult:
        names = sequence_matrices(self.dataset)
        facts, shown = {}, []
        for name in dict.fromkeys(names):
            own = torch.tensor([other == name for other in names])
            scores = Scores.of(matrices[own].sum(0), len(self.dataset.classes))
            facts[name] = {"images": int(own.sum()), **scores.facts(self.dataset.classes)}
            shown.append(f"{name} {_percent(scores.miou)} ({int(own.sum())} images)")
        return MetricResult(facts, f"mIoU by sequence: {' · '.join(shown)}")


class BootstrapInterval(ReportedMetric):
    """How far the mIoU may be off, by a bootstrap of blocks of frames.

    Raises:
        UserError: every sequence is a single block, so that there is nothing to draw.
    """

    def __init__(self, dataset: SegmentationDataset, block: int, bootstrap_samples: int, seed: int) -> None:
        longest = max(Counter(sequence_matrices(dataset)).values())
        if longest <= block:
            raise UserError(
                f"scores=interval draws blocks of {block} frames, and the longest sequence of {dataset.display_name()} {dataset.split} has "
                f"{longest}; {'leave it out' if longest == 1 else 'give a smaller bootstrap_block=N, 1 where images are no frames of a film'}"
            )
        self.dataset = dataset
        self.how = {"block": block, "bootstrap_samples": bootstrap_samples, "seed": seed}

    def result(self, matrices: Tensor) -> MetricResult:
        low, high = bootstrap_interval(matrices, len(self.dataset.classes), sequence_matrices(self.dataset), **self.how)
        facts = {"miou": [nan_to_none(low), nan_to_none(high)], "level": 0.95, **self.how}
        note = f"mIoU, 95 % interval {_percent(low)} to {_percent(high)} (blocks of {self.how['block']} frames)"
        return MetricResult(facts, note)


def sequence_matrices(dataset: SegmentationDataset) -> list[str]:
    """The video of each image."""
    return [dataset.sequence(i) for i in range(len(dataset))]


def mean_or_none(values: list[float]) -> float:
    """The mean of what is not NaN."""
    return torch.tensor(values, dtype=torch.float64).nanmean().item()


def make_columns(findings: Mapping[str, MetricResult]) -> dict[str, list[float]]:
    """Title → a fraction for each class, of the findings that have one."""
    return dict(finding.column for finding in findings.values() if finding.column is not None)


def _official(matrix: Tensor, classes: int) -> Tensor:
    """Without the row of void: unlabelled pixels make no false positives in the official scorer."""
    matrix = matrix.clone()
    matrix[classes:] = 0
    return matrix


def _named(names: tuple[str, ...], values: list[float]) -> dict[str, float | None]:
    return {name: nan_to_none(value) for name, value in zip(names, values, strict=True)}


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
