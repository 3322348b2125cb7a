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

from torch import Tensor, nn

from segkd.losses.features import get_feature
from segkd.types import FeatureInfos, Step


class Loss(nn.Module, ABC):
    """Base of all losses.

    Args:
        weight: its share in the objective, 0 or more; None for a default that depends on the features, set by `setup`.
    """

    needs_teacher: ClassVar[bool] = True
    extra_classes = 0
    """Outputs of the student beyond the data set's classes."""
    exemptions: ClassVar[Mapping[str, str]] = {}
    """Lines of the contract that it cannot keep, each with the reason: zero_at_equality, batch_invariance, crop_invariance,
    process_invariance, labels_do_not_matter."""

    def __init__(self, weight: float | None = 1.0) -> None:
        if weight is not None and not weight >= 0:
            raise ValueError(f"weight must be 0 or more, not {weight}: a negative one would teach the opposite")
        super().__init__()
        self.weight = weight

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check the features and make what depends on them, once, before any optimiser exists.

        Raises:
            UserError: a feature does not exist, or the two sides do not fit.
        """

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The raw loss, a scalar."""


class FeatureLoss(Loss):
    """Base of the losses that compare one feature of both networks and let its width differ.

    Args:
        weight: see `Loss`.
        feature: the features that are compared, of both networks.
    """

    def __init__(self, weight: float, feature: str) -> None:
        super().__init__(weight)
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        get_feature(student, self.feature, "student")
        get_feature(teacher, self.feature, "teacher")
