"""A surrogate of IoU itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean
from segkd.losses.functional import at_least_float32
from segkd.types import IGNORE_INDEX, Step, resize


class Lovasz(Loss):
    """Lovász-Softmax: 1 − IoU of each class, continued from sets to probabilities so that it has a slope.

        L = mean over images of the mean over classes c that the image's labels have of  Σ_i m_(i) · (J_i − J_(i−1))

    with m the errors |[y = c] − softmax(Q)_c| of the image's labelled pixels, sorted from the greatest, and J_i the Jaccard loss
    1 − |truth ∖ first i| / |truth ∪ first i| of a prediction that is wrong at the first i of them and nowhere else.

    Berman, Rannen Triki & Blaschko, *The Lovász-Softmax loss*, CVPR 2018 (arXiv 1705.08790), with the classes present and one IoU
    per image: that of a batch would hang on the batch's size. It is meant beside cross-entropy, at the end of a training: they
    tune with it what cross-entropy has trained.

    Logits (B K h w) are enlarged bilinearly to the target (B H W); pixels labelled IGNORE_INDEX do not count.

    Args:
        weight: share in the objective; 1 is ours.
        start_at: share of the training that is over when it sets in; before, it is zero. 0.8 would be the last fifth.
    """

    needs_teacher = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "it compares with labels, not with a teacher",
        "labels_do_not_matter": "it is what reads them",
    }

    def __init__(self, weight: float = 1.0, start_at: float = 0.0) -> None:
        if not 0 <= start_at < 1:
            raise ValueError(f"since is a share of the training, 0 or more and less than 1, not {start_at}")
        super().__init__(weight)
        self.start_at = start_at

    def forward(self, step: Step) -> Tensor:
        target, student = step.batch.target, step.student
        if step.progress < self.start_at:
            return 0 * at_least_float32(student.logits).sum()
        enlarged = resize(at_least_float32(student.logits), (target.shape[-2], target.shape[-1]), student.align_corners)
        counted = (target != IGNORE_INDEX).flatten(1)[:, None]
        truth = _one_hot(target, enlarged.shape[1]).flatten(2).to(enlarged)
        errors = (truth - enlarged.softmax(1).flatten(2)).abs()
        # What does not count comes last, where nothing is added any more.
        errors, order = errors.masked_fill(~counted, -1).sort(2, descending=True)
        losses = (errors * _lovasz_grad(truth.gather(2, order), errors >= 0)).sum(2)
        present = truth.bool().any(2)
        of_images = (losses * present).sum(1) / present.sum(1).clamp(min=1)
        return global_mean(of_images.sum(), present.any(1).sum())


def _one_hot(target: Tensor, classes: int) -> Tensor:
    """B K H W bool: true at the label's class, nowhere where there is none."""
    known = target != IGNORE_INDEX
    hot = F.one_hot(target.masked_fill(~known, 0), classes).permute(0, 3, 1, 2)
    return hot.bool() & known[:, None]


def _lovasz_grad(truth: Tensor, counted: Tensor) -> Tensor:
    """What each pixel in this order adds to the Jaccard loss when it is wrong too; B K P."""
    size = truth.sum(2, keepdim=True)
    left = size - truth.cumsum(2)
    union = size + (counted.to(truth) - truth).cumsum(2)
    # Not of 1 − IoU: next to 1 its small steps would be rounded away.
    iou = left / union.clamp(min=1)
    return -torch.diff(iou, dim=2, prepend=torch.ones_like(iou[..., :1]))
