"""How far a student follows its teacher."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from segkd.types import IGNORE_INDEX


class AgreementScores(NamedTuple):
    """Fractions of pixels, and nats."""

    agreement: float
    """Both name the same class, of all pixels."""
    divergence: float
    """Mean KL(teacher ‖ student) over all pixels."""
    both_right: float
    only_teacher_right: float
    only_student_right: float
    both_wrong: float
    """Of labelled pixels; the four sum to 1."""


class Agreement(Metric):
    """Student against teacher (Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021, arXiv 2106.05945).

    Args:
        num_classes: K; outputs beyond the classes are left out.
    """

    full_state_update = False
    agreed: Tensor
    pixels: Tensor
    divergence: Tensor
    right: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name, shape in (("agreed", ()), ("pixels", ()), ("right", (4,))):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("divergence", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, student: Tensor, teacher: Tensor, target: Tensor) -> None:
        """Count a batch: logits B K H W of both, target B H W."""
        student, teacher = (F.log_softmax(logits[:, : self.num_classes].float(), 1) for logits in (student, teacher))
        said, taught = student.max(1).indices, teacher.max(1).indices
        self.agreed += (said == taught).sum()
        self.pixels += target.numel()
        self.divergence += (teacher.exp() * (teacher - student)).double().sum()
        wrong = 2 * (taught != target).long() + (said != target).long()
        self.right += torch.bincount(wrong[target != IGNORE_INDEX], minlength=4)

    def compute(self) -> AgreementScores:
        """The scores."""
        both, teacher, student, none = (self.right.double() / self.right.sum()).tolist()
        pixels = self.pixels.double()
        return AgreementScores(
            (self.agreed / pixels).item(), (self.divergence / pixels).item(), both, teacher, student, none
        )
