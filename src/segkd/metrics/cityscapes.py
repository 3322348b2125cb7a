"""Cityscapes' category IoU and instance-level IoU (iIoU), in which each instance has the same weight whatever its size.

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
"""Pixels of the average instance of a class."""
INSTANCE_CATEGORIES = ("human", "vehicle")

PER_CLASS = 1000
"""An instance map holds class × PER_CLASS + number."""


def to_category_matrix(matrix: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Return the confusion matrix of the categories.

    A pixel that is confused with another class of its category is right here.

    Args:
        matrix: that of the classes, K × K or with void as the last; void stays the last.
        classes: names of the K classes.
    """
    category = _get_category_indices(classes, matrix.device)[: len(matrix)]
    size = len(CATEGORIES) + (len(matrix) > len(classes))
    merged = torch.zeros(size, size, dtype=matrix.dtype, device=matrix.device)
    return merged.index_put_((category[:, None], category[None]), matrix, accumulate=True)


class InstanceIoU(Metric):
    """True positive and false negative pixels of instances, each weighted by its class's average size over its own size.

    iIoU = iTP / (iTP + FP + iFN), where false positives are counted as in IoU, since a prediction has no instances.

    Args:
        classes: Cityscapes' class names.
    """

    full_state_update = False
    hits: Tensor
    misses: Tensor
    category_hits: Tensor
    category_misses: Tensor

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer(
            "average_size", torch.tensor([INSTANCE_PIXELS.get(c, 0.0) for c in classes], dtype=torch.float64)
        )
        self.register_buffer("category", _get_category_indices(classes, torch.device("cpu")))
        for prefix, size in (("", len(classes)), ("category_", len(CATEGORIES))):
            for name in ("hits", "misses"):
                self.add_state(prefix + name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, instances: Tensor) -> None:
        """Count a batch: predicted classes B H W (void is `len(classes)`), instances B H W, -1 where there is none."""
        average_size, category = self.get_buffer("average_size"), self.get_buffer("category")
        for image_classes, image_instances in zip(predicted, instances, strict=True):
            mask = image_instances >= 0
            ids, index = image_instances[mask].unique(return_inverse=True)
            pixel_classes, true_classes = image_classes[mask], torch.div(ids, PER_CLASS, rounding_mode="floor")
            size = torch.bincount(index, minlength=len(ids))
            weight = average_size[true_classes] / size
            is_hit = pixel_classes == true_classes[index]
            is_category_hit = category[pixel_classes] == category[true_classes][index]
            hits = torch.bincount(index[is_hit], minlength=len(ids))
            category_hits = torch.bincount(index[is_category_hit], minlength=len(ids))
            self.hits.index_add_(0, true_classes, hits * weight)
            self.misses.index_add_(0, true_classes, (size - hits) * weight)
            self.category_hits.index_add_(0, category[true_classes], category_hits * weight)
            self.category_misses.index_add_(0, category[true_classes], (size - category_hits) * weight)

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return hits and misses by class, then by category."""
        return self.hits, self.misses, self.category_hits, self.category_misses


def compute_instance_iou(hits: Tensor, misses: Tensor, matrix: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Return the iIoU of the classes or categories that have instances; NaN for one that does not occur.

    Args:
        hits: see `InstanceIoU.compute`.
        misses: see there.
        matrix: the confusion matrix.
        names: of its rows, without void.
    """
    false_positives = matrix[: len(names)].sum(0)[: len(names)] - matrix.diag()[: len(names)]
    iou = hits / (hits + misses + false_positives)
    return {
        name: value
        for name, value in zip(names, iou.tolist(), strict=True)
        if name in {*INSTANCE_PIXELS, *INSTANCE_CATEGORIES}
    }


def _get_category_indices(classes: tuple[str, ...], device: torch.device) -> Tensor:
    """Return the category of each class, and of void, which comes last in both."""
    category_of = {name: i for i, names in enumerate(CATEGORIES.values()) for name in names}
    return torch.tensor([*(category_of[name] for name in classes), len(CATEGORIES)], device=device)
