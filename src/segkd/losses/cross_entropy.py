"""The supervised term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import Loss, global_mean, wide
from segkd.types import IGNORE_INDEX, Step, resize


class CrossEntropy(Loss):
    """Cross-entropy of the labels at full size, and of the auxiliary head where the student has one.

        L = mean over labelled pixels of −log softmax(Q)_y,  plus auxiliary_weight · the same of the tap `auxiliary`

    Logits (B K h w) are enlarged bilinearly to the target (B H W). Pixels labelled IGNORE_INDEX do not count.

    Args:
        weight: share in the objective.
        auxiliary_weight: of the side head; 0.4 as in PSPNet and in Liu et al.'s code (utils/criterion.py, CriterionDSN).
    """

    needs_teacher = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "it compares with labels, not with a teacher",
        "labels_do_not_matter": "it is what reads them",
    }

    def __init__(self, weight: float = 1.0, auxiliary_weight: float = 0.4) -> None:
        super().__init__(weight)
        self.auxiliary_weight = auxiliary_weight

    def forward(self, step: Step) -> Tensor:
        target = step.batch.target
        student = step.student
        loss = self._mean(student.logits, target, student.align_corners)
        side = student.taps.get("auxiliary")
        if side is None or self.auxiliary_weight == 0:
            return loss
        return loss + self.auxiliary_weight * self._mean(side, target, student.align_corners)

    @staticmethod
    def _mean(logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        enlarged = resize(wide(logits), (target.shape[-2], target.shape[-1]), align_corners)
        total = F.cross_entropy(enlarged, target, ignore_index=IGNORE_INDEX, reduction="sum")
        return global_mean(total, (target != IGNORE_INDEX).sum())
