"""The contract of a loss.

A loss is a function of a `Step`. It returns its *raw* value; `LossSum` applies the weights. Every loss has one unit: the
mean over the valid pixels (or pairs of nodes, channels, images) of the global batch, so that a weight means the same at
any batch size, crop size and number of processes. Sums are in float32 or wider. Where nothing is valid the value is a zero
that can be differentiated. A distillation loss is zero where student and teacher are equal, and needs no label.

In the examples of the losses, `step` is a `Step` and `features` maps feature names to `FeatureInfo`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from segkd.losses.features import get_feature
from segkd.types import FeatureInfos, Step


class Loss(nn.Module, ABC):
    """Base of all losses.

    Args:
        weight: factor in the objective, 0 or more; None for a default that depends on the features, set by `setup`.
    """

    needs_teacher: ClassVar[bool] = True
    needs_teacher_classes: bool = True
    """Whether the teacher's classes must be the student's; its features may be those of any classes."""
    extra_classes = 0
    """Student outputs beyond the classes of the dataset."""
    exemptions: ClassVar[Mapping[str, str]] = {}
    """Lines of the contract that the loss cannot keep, each with the reason: zero_at_equality, batch_invariance,
    crop_invariance, process_invariance, labels_do_not_matter."""

    def __init__(self, weight: float | None = 1.0) -> None:
        if weight is not None and not weight >= 0:
            raise ValueError(f"weight must be 0 or more, not {weight}: a negative one would teach the opposite")
        super().__init__()
        self.weight = weight

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check the features and create projectors, once, before any optimizer exists.

        Args:
            student: the declared features of the student.
            teacher: those of the teacher; None without one.

        Raises:
            UserError: a feature does not exist, or student and teacher do not fit.
        """

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """Compute the raw loss, a scalar."""


class FeatureLoss(Loss):
    """Base of the losses that compare one feature of both networks, which may differ in width.

    Args:
        weight: see `Loss`.
        feature: name of the compared feature, in both networks.
    """

    needs_teacher_classes = False

    def __init__(self, weight: float, feature: str) -> None:
        super().__init__(weight)
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check that both networks have the feature."""
        assert teacher is not None
        get_feature(student, self.feature, "student")
        get_feature(teacher, self.feature, "teacher")
