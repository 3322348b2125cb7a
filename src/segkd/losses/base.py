"""The contract of a loss.

A loss is a function of a `Step`. It returns its *raw* value; the weighted sum is `LossSum`'s. Every loss has one unit: the
mean over the counted pixels (or pairs of nodes, channels, images) of the global batch, so that a weight means the same at
any batch size, crop size and number of processes. Sums are in float32 or wider. Where nothing counts the value is a zero
that can be differentiated. A distillation loss is zero where student and teacher say the same, and needs no label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.types import Outputs, Step, Tap, Taps, resize

_LEAST_NORM = 1e-6


class Loss(nn.Module, ABC):
    """Base of all losses.

    Args:
        weight: its share in the objective, 0 or more; None for a default that depends on the taps, set by `connect`.
    """

    needs_teacher: ClassVar[bool] = True
    more_outputs = 0
    """Outputs of the student beyond the data set's classes."""
    exemptions: ClassVar[Mapping[str, str]] = {}
    """Lines of the contract that it cannot keep, each with the reason: zero_at_equality, batch_invariance, crop_invariance,
    process_invariance, labels_do_not_matter."""

    def __init__(self, weight: float | None = 1.0) -> None:
        if weight is not None and not weight >= 0:
            raise ValueError(f"weight must be 0 or more, not {weight}: a negative one would teach the opposite")
        super().__init__()
        self.weight = weight

    def connect(self, student: Taps, teacher: Taps | None) -> None:
        """Check the taps and make what depends on them, once, before any optimiser exists.

        Raises:
            UserError: a tap does not exist, or the two sides do not fit.
        """

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The raw loss, a scalar."""


class FeatureLoss(Loss):
    """Base of the losses that compare one tap of both networks and let its width differ.

    Args:
        weight: see `Loss`.
        tap: the features that are compared, of both networks.
    """

    def __init__(self, weight: float, tap: str) -> None:
        super().__init__(weight)
        self.tap = tap

    def connect(self, student: Taps, teacher: Taps | None) -> None:
        assert teacher is not None
        tap_of(student, self.tap, "student")
        tap_of(teacher, self.tap, "teacher")


def tap_of(taps: Taps, name: str, whose: str) -> Tap:
    """The declared tap of a name.

    Raises:
        UserError: there is none; names those that there are.
    """
    if name not in taps:
        raise UserError(f"the {whose} has no tap '{name}'; it has {', '.join(taps)}")
    return taps[name]


def teacher_of(step: Step) -> Outputs:
    """The teacher's answer, which a distillation loss cannot do without."""
    if step.teacher is None:
        raise ValueError("this loss compares with a teacher, and the step has none")
    return step.teacher


def same_classes(student: Taps, teacher: Taps, tap: str) -> int:
    """How many classes both the student's tap and the teacher score.

    Raises:
        UserError: they differ, or there is no such tap.
    """
    ours, theirs = tap_of(student, tap, "student"), tap_of(teacher, "scores", "teacher")
    if ours.channels != theirs.channels:
        raise UserError(
            f"the student's tap '{tap}' has {ours.channels} channels, and the teacher scores {theirs.channels} classes; "
            "take a tap that holds class scores, and a teacher of the same classes"
        )
    return ours.channels


def side_by_side(step: Step, student_tap: str, teacher_tap: str) -> tuple[Tensor, Tensor, Tensor]:
    """The student's map and the teacher's at its size, both wide, and the places that count, B h w bool.

    A teacher's `scores` are its logits: an inner classifier of a teacher may never have been trained.
    """
    teacher = teacher_of(step)
    ours = wide(step.student.taps[student_tap])
    size = (ours.shape[-2], ours.shape[-1])
    theirs = teacher.logits if teacher_tap == "scores" else teacher.taps[teacher_tap]
    theirs = resize(wide(theirs), size, teacher.align_corners).detach().to(ours)
    return ours, theirs, at_stride(step.batch.valid, size)


def projector(student: Tap, teacher: Tap) -> nn.Conv2d:
    """A linear map from the student's channels to the teacher's, to be learned with the student."""
    return nn.Conv2d(student.channels, teacher.channels, 1, bias=False)


def wide(maps: Tensor) -> Tensor:
    """The maps in float32, or as they are where that is wider: bfloat16 keeps three digits."""
    return maps.float() if maps.dtype.itemsize < 4 else maps


def directions(features: Tensor, dim: int = 1) -> Tensor:
    """Features over their norms.

    One that is zero, as all channels are after a ReLU that fires nowhere, has no direction: it stays zero and gets no
    gradient, where `F.normalize` would multiply its gradient by 10¹².
    """
    norm = torch.linalg.vector_norm(features, dim=dim, keepdim=True)
    return torch.where(norm > _LEAST_NORM, features / norm.clamp(min=_LEAST_NORM), 0)


def at_stride(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """B H W bool at a map's size, B h w: a place counts where the pixel nearest to it does."""
    if mask.shape[-2:] == size:
        return mask
    return F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")[:, 0] > 0.5


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """`total / count` with both summed over all processes; zero where nothing counts anywhere.

    Distributed training averages gradients over processes, so each process returns its own total times the number of
    processes over the global count: the average of the gradients is then the gradient of the global mean.
    """
    everywhere = global_sum(count)
    return total * _processes() / torch.where(everywhere > 0, everywhere, 1)


def global_sum(share: Tensor) -> Tensor:
    """The sum over all processes, for what is no mean: its gradient, averaged over processes, is that of the sum.

    Not to be nested: of a sum in a sum each process knows its own part of the gradient alone.
    """
    processes = _processes()
    if processes == 1:
        return share
    total = share.detach().clone()
    torch.distributed.all_reduce(total)
    return total + processes * (share - share.detach())


def _processes() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1
