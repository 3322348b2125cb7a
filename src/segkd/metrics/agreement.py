"""Agreement of a student with its teacher."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from segkd.types import IGNORE_INDEX


class AgreementScores(NamedTuple):
    """Fractions of pixels, and a divergence in nats."""

    agreement: float
    """Both predict the same class, of all pixels."""
    divergence: float
    """Mean KL(teacher ‖ student) over all pixels."""
    both_right: float
    only_teacher_right: float
    only_student_right: float
    both_wrong: float
    """Of labeled pixels; the four sum to 1."""


class Agreement(Metric):
    """Student against teacher (Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021, arXiv 2106.05945).

    Args:
        num_classes: K; outputs beyond the classes are ignored.
    """

    full_state_update = False
    agreed: Tensor
    pixels: Tensor
    divergence: Tensor
    outcomes: Tensor
    """Labeled pixels where both are right, only the teacher, only the student, and none."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name, shape in (("agreed", ()), ("pixels", ()), ("outcomes", (4,))):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("divergence", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, student: Tensor, teacher: Tensor, target: Tensor) -> None:
        """Count a batch: logits B K H W of both, target B H W."""
        log_q, log_p = (F.log_softmax(logits[:, : self.num_classes].float(), 1) for logits in (student, teacher))
        student_classes, teacher_classes = log_q.max(1).indices, log_p.max(1).indices
        self.agreed += (student_classes == teacher_classes).sum()
        self.pixels += target.numel()
        self.divergence += (log_p.exp() * (log_p - log_q)).double().sum()
        outcome = 2 * (teacher_classes != target).long() + (student_classes != target).long()
        self.outcomes += torch.bincount(outcome[target != IGNORE_INDEX], minlength=4)

    def compute(self) -> AgreementScores:
        """Return the scores."""
        both_right, only_teacher, only_student, both_wrong = (self.outcomes.double() / self.outcomes.sum()).tolist()
        pixels = self.pixels.double()
        return AgreementScores(
            agreement=(self.agreed / pixels).item(),
            divergence=(self.divergence / pixels).item(),
            both_right=both_right,
            only_teacher_right=only_teacher,
            only_student_right=only_student,
            both_wrong=both_wrong,
        )
