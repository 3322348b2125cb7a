"""Lovász-Softmax: a differentiable surrogate of IoU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.checks import prepare_logits_and_target
from segkd.losses.distributed import global_mean
from segkd.losses.tensors import at_least_float32, get_size
from segkd.types import IGNORE_INDEX, Step, resize


def lovasz_loss(logits: Tensor, target: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Return the mean over images, and over the classes in an image's labels, of the Lovász extension of 1 − IoU.

    Berman et al., CVPR 2018 (arXiv 1705.08790), Lovász-Softmax.

    Args:
        logits: B K H W.
        target: class indices B H W.
        ignore_index: the label of a pixel that does not count.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> logits, target = torch.randn(2, 11, 90, 120), torch.randint(0, 11, (2, 90, 120))
        >>> lovasz_loss(logits, target).shape
        torch.Size([])
    """
    logits, target = prepare_logits_and_target(logits, target, ignore_index)
    valid = (target != ignore_index).flatten(1)[:, None]
    one_hot = _encode_one_hot(target, logits.shape[1], ignore_index).flatten(2).to(logits)
    errors = (one_hot - logits.softmax(1).flatten(2)).abs()
    # Void comes last, where it adds nothing.
    errors, order = errors.masked_fill(~valid, -1).sort(2, descending=True)
    class_losses = (errors * _compute_lovasz_grad(one_hot.gather(2, order), errors >= 0)).sum(2)
    present = one_hot.bool().any(2)
    image_losses = (class_losses * present).sum(1) / present.sum(1).clamp(min=1)
    return global_mean(image_losses.sum(), present.any(1).sum())


def _encode_one_hot(target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return B K H W bool: true at the class of the label, all false where it is void."""
    labeled = target != ignore_index
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
        enlarged = resize(at_least_float32(student.logits), get_size(target), student.align_corners)
        return lovasz_loss(enlarged, target)
