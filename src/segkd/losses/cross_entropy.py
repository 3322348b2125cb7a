"""The supervised term."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean
from segkd.losses.features import get_feature
from segkd.losses.functional import at_least_float32
from segkd.types import IGNORE_INDEX, FeatureInfos, Step, resize

_HARDEST = 16  # a sixteenth of them counts in any case


class CrossEntropy(Loss):
    """Cross-entropy of the labels at full size, and of the auxiliary head where the student has one.

        L = Σ w_y · −log softmax(Q)_y / Σ w_y over labelled pixels,  plus auxiliary_weight · the same of the feature `auxiliary`

    with w the class weights, all 1 without them: it is a mean, so that they change what classes weigh among themselves, not what
    the loss weighs among others. With `ohem` the sums are over hard pixels alone: those whose class has that probability at most,
    and in any case the hardest sixteenth of each image's labelled pixels (online hard example mining: Shrivastava et al., 2016,
    1604.03540; for segmentation Wu et al., 2016, 1605.06885. 0.7 and a sixteenth are the common choice; by image, so that the batch's
    size does not matter).

    Logits (B K h w) are enlarged bilinearly to the target (B H W). Pixels labelled IGNORE_INDEX do not count, or are of the
    last class with `void=class`, as Mehta et al. trained ESPNet (the student then has one output more than the data set has
    classes); what augmentation padded never counts.

    Args:
        weight: share in the objective.
        auxiliary_weight: of the side head; 0.4 as in PSPNet and in Liu et al.'s code (utils/criterion.py, CriterionDSN).
        void: `ignored` or `class`.
        class_weights: one for each output, 0 or more; in a config also a rule, by which `build` finds them from the training
            labels: `enet` or `median_frequency` (see `segkd.data.statistics.compute_class_weights`).
        ohem: a probability, or None for all pixels.
    """

    class_weights: Tensor | None

    needs_teacher = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "it compares with labels, not with a teacher",
        "labels_do_not_matter": "it is what reads them",
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
            raise ValueError(f"class_weights '{class_weights}' follow from labels; give numbers")
        if class_weights is not None and not (min(class_weights) >= 0 < max(class_weights)):
            raise ValueError(f"class_weights must be 0 or more, one of them above, not {class_weights}")
        if void not in ("ignored", "class"):
            raise ValueError(f"void is 'ignored' or 'class', not '{void}'")
        if ohem is not None and not 0 < ohem <= 1:
            raise ValueError(f"ohem is a probability, above 0 and at most 1, or null, not {ohem}")
        super().__init__(weight)
        self.auxiliary_weight = auxiliary_weight
        self.ohem = ohem
        self.void = void
        self.extra_classes = int(void == "class")
        # Not in checkpoints: they follow from the config and the data.
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:  # noqa: ARG002  labels take a teacher's place
        if self.class_weights is None:
            return
        given, outputs = len(self.class_weights), get_feature(student, "kd_logits", "student").channels
        if given != outputs:
            raise UserError(f"there are {given} class_weights for a student of {outputs} outputs; give one for each")

    def forward(self, step: Step) -> Tensor:
        target, student = step.batch.target, step.student
        if self.void == "class":
            unlabelled = (target == IGNORE_INDEX) & step.batch.valid
            target = target.masked_fill(unlabelled, student.logits.shape[1] - 1)
        loss = self._mean(student.logits, target, student.align_corners)
        side = student.features.get("auxiliary")
        if side is None or self.auxiliary_weight == 0:
            return loss
        return loss + self.auxiliary_weight * self._mean(side, target, student.align_corners)

    def _mean(self, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        enlarged = resize(at_least_float32(logits), (target.shape[-2], target.shape[-1]), align_corners)
        weights = None if self.class_weights is None else self.class_weights.to(enlarged)
        if self.ohem is not None:
            target = target.masked_fill(~_hard_pixel_mask(enlarged.detach(), target, self.ohem), IGNORE_INDEX)
        total = F.cross_entropy(enlarged, target, weights, ignore_index=IGNORE_INDEX, reduction="sum")
        counted = target != IGNORE_INDEX
        return global_mean(total, counted.sum() if weights is None else weights[target[counted]].sum())


def _hard_pixel_mask(logits: Tensor, target: Tensor, at_most: float) -> Tensor:
    """B H W bool: labelled pixels whose class has a probability at most, and the hardest of each image."""
    labelled = target != IGNORE_INDEX
    surprise = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
    order = surprise.masked_fill(~labelled, -1).flatten(1).argsort(1, descending=True)
    least = (labelled.flatten(1).sum(1, keepdim=True) / _HARDEST).ceil()
    among_the_first = (
        torch.arange(order.shape[1], device=order.device) < least
    )  # by rank, since easy pixels are worth alike
    hardest = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, among_the_first).view_as(labelled)
    return labelled & (hardest | (surprise >= -math.log(at_most)))
