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

    Logits (B K h w) are enlarged bilinearly to the target (B H W). Pixels labelled IGNORE_INDEX do not count, or are of the
    last class with `void=class`, as Mehta et al. trained ESPNet (the student then has one output more than the data set has
    classes); what augmentation padded never counts.

    Args:
        weight: share in the objective.
        auxiliary_weight: of the side head; 0.4 as in PSPNet and in Liu et al.'s code (utils/criterion.py, CriterionDSN).
        void: `ignored` or `class`.
    """

    needs_teacher = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "it compares with labels, not with a teacher",
        "labels_do_not_matter": "it is what reads them",
    }

    def __init__(self, weight: float = 1.0, auxiliary_weight: float = 0.4, void: str = "ignored") -> None:
        if void not in ("ignored", "class"):
            raise ValueError(f"void is 'ignored' or 'class', not '{void}'")
        super().__init__(weight)
        self.auxiliary_weight = auxiliary_weight
        self.void = void
        self.more_outputs = int(void == "class")

    def forward(self, step: Step) -> Tensor:
        target, student = step.batch.target, step.student
        if self.void == "class":
            unlabelled = (target == IGNORE_INDEX) & step.batch.valid
            target = target.masked_fill(unlabelled, student.logits.shape[1] - 1)
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
