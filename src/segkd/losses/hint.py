"""Hints: the student's features can be turned into the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, get_feature, make_projector
from segkd.types import FeatureInfos, Step


class Hint(Loss):
    """Squared difference of the teacher's features and a learned linear map of the student's.

        L = mean over places and channels of (R f^student − f^teacher)²,   R: C_teacher × C_student, learned

    FitNets: Romero et al., 2015 (arXiv 1412.6550), equation 3; in Liu et al., 2019, table 2, it is MIMIC. Maps are B C h w; the
    teacher's is resized to the student's. Padded places do not count.

    Args:
        weight: 10, CIRKD's (train_fitnet.sh), on the same mean. The paper trains with nothing else first, and gives no weight.
        feature: the features that are compared, of both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "the projector has to learn first that the features are the teacher's"
    }

    def __init__(self, weight: float = 10.0, feature: str = "encoder") -> None:
        super().__init__(weight)
        self.feature = feature
        self.projector: nn.Module = nn.Identity()

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        self.projector = make_projector(
            get_feature(student, self.feature, "student"), get_feature(teacher, self.feature, "teacher")
        )

    def forward(self, step: Step) -> Tensor:
        ours, theirs, counted = align_features(step, self.feature, self.feature)
        with torch.autocast(ours.device.type, enabled=False):
            difference = self.projector(ours) - theirs
        total = (difference.square().sum(1) * counted).sum()
        return global_mean(total, counted.sum() * theirs.shape[1])
