"""A loss of one's own."""

from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.types import Step


class FeatureL1(FeatureLoss):
    """Mean over positions of |a_student − a_teacher|, where a is the mean of |f| over channels."""

    def forward(self, step: Step) -> Tensor:
        student, teacher, valid = align_features(step, self.feature, self.feature)
        distance = (student.abs().mean(1) - teacher.abs().mean(1)).abs()
        return global_mean((distance * valid).sum(), valid.sum())
