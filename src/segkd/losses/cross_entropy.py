"""Cross-entropy with the labels: the supervised loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.checks import prepare_logits_and_target
from segkd.losses.distributed import global_mean
from segkd.losses.features import get_feature
from segkd.losses.tensors import at_least_float32, get_size
from segkd.types import IGNORE_INDEX, FeatureInfos, Step, resize

_MIN_HARD_FRACTION = 16  # at least one pixel in sixteen counts


def cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | Sequence[float] | None = None,
    ohem: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Return Σ w_y · −log softmax(logits)_y / Σ w_y over labeled pixels, with `ohem` over hard pixels only.

    Shrivastava et al., 2016 (arXiv 1604.03540) for `ohem`.

    Args:
        logits: B K H W.
        target: class indices B H W.
        class_weights: w, K numbers of 0 or more; None for equal ones.
        ohem: count pixels whose class has at most this probability, and at least the hardest sixteenth of each image's.
        ignore_index: the label of a pixel that does not count.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> logits, target = torch.randn(2, 11, 90, 120), torch.randint(0, 11, (2, 90, 120))
        >>> cross_entropy_loss(logits, target, ohem=0.7).shape
        torch.Size([])
    """
    _check_ohem(ohem)
    logits, target = prepare_logits_and_target(logits, target, ignore_index)
    weights = None if class_weights is None else torch.as_tensor(class_weights).to(logits)
    if weights is not None and weights.shape != (logits.shape[1],):
        raise ValueError(
            f"class_weights has the shape {tuple(weights.shape)}; give one for each of {logits.shape[1]} classes"
        )
    if ohem is not None:
        target = target.masked_fill(~_find_hard_pixels(logits.detach(), target, ohem, ignore_index), ignore_index)
    total = F.cross_entropy(logits, target, weights, ignore_index=ignore_index, reduction="sum")
    valid = target != ignore_index
    return global_mean(total, valid.sum() if weights is None else weights[target[valid]].sum())


def _find_hard_pixels(logits: Tensor, target: Tensor, max_probability: float, ignore_index: int) -> Tensor:
    """Return B H W bool: labeled pixels whose class has at most this probability, and the hardest of each image."""
    labeled = target != ignore_index
    pixel_loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    order = pixel_loss.masked_fill(~labeled, -1).flatten(1).argsort(1, descending=True)
    min_count = (labeled.flatten(1).sum(1, keepdim=True) / _MIN_HARD_FRACTION).ceil()
    # By rank, since the losses of easy pixels are equal.
    is_first = torch.arange(order.shape[1], device=order.device) < min_count
    hardest = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, is_first).view_as(labeled)
    return labeled & (hardest | (pixel_loss >= -math.log(max_probability)))


def _check_ohem(ohem: float | None) -> None:
    if ohem is not None and not 0 < ohem <= 1:
        raise ValueError(f"ohem is a probability, above 0 and at most 1, or null, not {ohem}")


class CrossEntropy(Loss):
    """Cross-entropy with the labels at full size, for the logits and for the auxiliary head of a student that has one.

        L = Σ w_y · −log softmax(Q)_y / Σ w_y over labeled pixels,  plus auxiliary_weight · the same of the feature `auxiliary`

    with w the class weights, all 1 by default. It is a mean, so class weights change the balance between classes, not between
    this loss and others. With `ohem` the sums run over hard pixels only: those whose class has that probability at most,
    and in any case the hardest sixteenth of each image's labeled pixels (online hard example mining: Shrivastava et al.,
    2016, 1604.03540; for segmentation Wu et al., 2016, 1605.06885. 0.7 and a sixteenth are the common choice; by image, so
    that the batch size does not matter).

    Logits are enlarged bilinearly to the target. Pixels labeled IGNORE_INDEX do not count. With `void=class` they are the
    last class, as Mehta et al. trained ESPNet (the student then has one output more than the dataset has classes). Pixels
    that augmentation padded never count.

    Shape:
        - student logits, feature `auxiliary`: B K h w; target: B H W.
        - output: scalar.

    Example:
        >>> CrossEntropy(ohem=0.7)(step).shape
        torch.Size([])

    Args:
        weight: factor in the objective.
        auxiliary_weight: factor of the auxiliary head; 0.4 as in PSPNet and in Liu et al.'s code (utils/criterion.py,
            CriterionDSN).
        void: `ignored` or `class`.
        class_weights: one for each output, 0 or more; in a config also `enet` or `median_frequency`, which are computed from
            the training labels (see `segkd.data.statistics.compute_class_weights`).
        ohem: a probability, or None for all pixels.
    """

    class_weights: Tensor | None

    needs_teacher = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "it compares with labels, not with a teacher",
        "labels_do_not_matter": "it compares with labels",
    }

    def __init__(
        self,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        void: str = "ignored",
        class_weights: Literal["enet", "median_frequency"] | list[float] | None = None,
        ohem: float | None = None,
    ) -> None:
        if isinstance(class_weights, str):
            raise ValueError(f"class_weights '{class_weights}' are computed from labels; give numbers")
        if class_weights is not None and not (min(class_weights) >= 0 < max(class_weights)):
            raise ValueError(f"class_weights must be 0 or more, at least one of them positive, not {class_weights}")
        if void not in ("ignored", "class"):
            raise ValueError(f"void is 'ignored' or 'class', not '{void}'")
        _check_ohem(ohem)
        super().__init__(weight)
        self.auxiliary_weight = auxiliary_weight
        self.ohem = ohem
        self.void = void
        self.extra_classes = int(void == "class")
        # Not in checkpoints: they follow from the config and the data.
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:  # noqa: ARG002  only labels are compared
        """Check that there is a class weight for each output."""
        if self.class_weights is None:
            return
        num_weights, num_outputs = len(self.class_weights), get_feature(student, "kd_logits", "student").channels
        if num_weights != num_outputs:
            raise UserError(
                f"there are {num_weights} class_weights for a student of {num_outputs} outputs; give one for each"
            )

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        target, student = step.batch.target, step.student
        if self.void == "class":
            is_void = (target == IGNORE_INDEX) & step.batch.valid
            target = target.masked_fill(is_void, student.logits.shape[1] - 1)
        loss = self._compute_mean(student.logits, target, student.align_corners)
        auxiliary = student.features.get("auxiliary")
        if auxiliary is None or self.auxiliary_weight == 0:
            return loss
        return loss + self.auxiliary_weight * self._compute_mean(auxiliary, target, student.align_corners)

    def _compute_mean(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        enlarged = resize(at_least_float32(logits), get_size(target), align_corners)
        return cross_entropy_loss(enlarged, target, self.class_weights, self.ohem)
