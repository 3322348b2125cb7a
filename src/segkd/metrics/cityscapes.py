"""What Cityscapes' official scorer adds to class IoU: categories, and instances that count alike whatever their size.

Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016, arXiv 1604.01685; groups and average
sizes as in cityscapesScripts 2.3.0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
INSTANCE_PIXELS = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of a class's average instance."""
INSTANCE_CATEGORIES = ("human", "vehicle")

PER_CLASS = 1000
"""An instance is class × PER_CLASS + number in a map of instances."""


def to_category_matrix(matrix: Tensor, classes: tuple[str, ...]) -> Tensor:
    """The confusion matrix of the categories from that of the classes, K × K or with void as last; void stays the last.

    A pixel that is taken for another class of its category is right here.
    """
    group = _categories(classes, matrix.device)[: len(matrix)]
    size = len(CATEGORIES) + (len(matrix) > len(classes))
    merged = torch.zeros(size, size, dtype=matrix.dtype, device=matrix.device)
    return merged.index_put_((group[:, None], group[None]), matrix, accumulate=True)


class InstanceIoU(Metric):
    """Found and missed pixels of instances, each weighted by its class's average size over its own: of iIoU.

    iIoU = iTP / (iTP + FP + iFN), where false positives are counted as in IoU, since a prediction has no instances.

    Args:
        classes: their names, Cityscapes'.
    """

    full_state_update = False
    found: Tensor
    missed: Tensor
    found_category: Tensor
    missed_category: Tensor

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer(
            "pixels", torch.tensor([INSTANCE_PIXELS.get(c, 0.0) for c in classes], dtype=torch.float64)
        )
        self.register_buffer("category", _categories(classes, torch.device("cpu")))
        for name, size in (("", len(classes)), ("_category", len(CATEGORIES))):
            for kind in ("found", "missed"):
                self.add_state(kind + name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, instances: Tensor) -> None:
        """Count a batch: predicted classes B H W (void is `len(classes)`), instances B H W, -1 where there is none."""
        pixels, category = self.get_buffer("pixels"), self.get_buffer("category")
        for said, instance in zip(predicted, instances, strict=True):
            there = instance >= 0
            ids, which = instance[there].unique(return_inverse=True)
            said, true = said[there], torch.div(ids, PER_CLASS, rounding_mode="floor")
            size = torch.bincount(which, minlength=len(ids))
            weight = pixels[true] / size
            right = torch.bincount(which[said == true[which]], minlength=len(ids))
            near = torch.bincount(which[category[said] == category[true][which]], minlength=len(ids))
            self.found.index_add_(0, true, right * weight)
            self.missed.index_add_(0, true, (size - right) * weight)
            self.found_category.index_add_(0, category[true], near * weight)
            self.missed_category.index_add_(0, category[true], (size - near) * weight)

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Found and missed by class, then by category."""
        return self.found, self.missed, self.found_category, self.missed_category


def compute_instance_iou(found: Tensor, missed: Tensor, matrix: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """iIoU of what has instances among `names`, the rows of the confusion matrix; NaN for what is nowhere."""
    false = matrix[: len(names)].sum(0)[: len(names)] - matrix.diag()[: len(names)]
    score = found / (found + missed + false)
    return {
        name: value
        for name, value in zip(names, score.tolist(), strict=True)
        if name in {*INSTANCE_PIXELS, *INSTANCE_CATEGORIES}
    }


def _categories(classes: tuple[str, ...], device: torch.device) -> Tensor:
    """Class → category; void, which comes last in both, → void."""
    of_class = {name: i for i, names in enumerate(CATEGORIES.values()) for name in names}
    return torch.tensor([*(of_class[name] for name in classes), len(CATEGORIES)], device=device)
