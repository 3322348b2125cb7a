"""Lovász-Softmax: a differentiable surrogate of IoU."""

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
    """Lovász-Softmax: 1 − IoU of each class, extended from sets to probabilities so that it has a gradient.

        L = mean over images of the mean over the classes c in the image's labels of  Σ_i m_(i) · (J_i − J_(i−1))

    with m the errors |[y = c] − softmax(Q)_c| of the image's labeled pixels in descending order, and J_i the Jaccard loss
    1 − |target ∩ prediction| / |target ∪ prediction| of a prediction that is wrong at exactly the first i of them.

    Berman, Rannen Triki & Blaschko, *The Lovász-Softmax loss*, CVPR 2018 (arXiv 1705.08790), with the classes present and one
    IoU per image: the IoU of a batch would depend on the batch size. Use it beside cross-entropy, at the end of a training:
    the authors fine-tune with it what cross-entropy has trained.

    Logits are enlarged bilinearly to the target; pixels labeled IGNORE_INDEX do not count.

    Shape:
        - student logits: B K h w; target: B H W.
        - output: scalar.

    Example:
        >>> Lovasz(start_at=0.0)(step).shape
        torch.Size([])

    Args:
        weight: factor in the objective; 1 is our choice.
        start_at: fraction of the training before which the loss is zero; 0.8 for the last fifth.
    """

    needs_teacher = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "it compares with labels, not with a teacher",
        "labels_do_not_matter": "it compares with labels",
    }

    def __init__(self, weight: float = 1.0, start_at: float = 0.0) -> None:
        if not 0 <= start_at < 1:
            raise ValueError(f"start_at is a fraction of the training, 0 or more and less than 1, not {start_at}")
        super().__init__(weight)
        self.start_at = start_at

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        target, student = step.batch.target, step.student
        if step.progress < self.start_at:
            return 0 * at_least_float32(student.logits).sum()
        enlarged = resize(at_least_float32(student.logits), (target.shape[-2], target.shape[-1]), student.align_corners)
        valid = (target != IGNORE_INDEX).flatten(1)[:, None]
        one_hot = _encode_one_hot(target, enlarged.shape[1]).flatten(2).to(enlarged)
        errors = (one_hot - enlarged.softmax(1).flatten(2)).abs()
        # Void comes last, where it adds nothing.
        errors, order = errors.masked_fill(~valid, -1).sort(2, descending=True)
        class_losses = (errors * _compute_lovasz_grad(one_hot.gather(2, order), errors >= 0)).sum(2)
        present = one_hot.bool().any(2)
        image_losses = (class_losses * present).sum(1) / present.sum(1).clamp(min=1)
        return global_mean(image_losses.sum(), present.any(1).sum())


def _encode_one_hot(target: Tensor, num_classes: int) -> Tensor:
    """Return B K H W bool: true at the class of the label, all false where it is void."""
    labeled = target != IGNORE_INDEX
    one_hot = F.one_hot(target.masked_fill(~labeled, 0), num_classes).permute(0, 3, 1, 2)
    return one_hot.bool() & labeled[:, None]


def _compute_lovasz_grad(one_hot: Tensor, valid: Tensor) -> Tensor:
    """Return the increase of the Jaccard loss when the next pixel in this order is wrong too, B K P."""
    size = one_hot.sum(2, keepdim=True)
    intersection = size - one_hot.cumsum(2)
    union = size + (valid.to(one_hot) - one_hot).cumsum(2)
    # Not of 1 − IoU: its small steps would be rounded away near 1.
    iou = intersection / union.clamp(min=1)
    return -torch.diff(iou, dim=2, prepend=torch.ones_like(iou[..., :1]))
