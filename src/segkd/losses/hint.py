"""Hints: the student's features can be mapped to the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from segkd.losses.base import Loss
from segkd.losses.checks import prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, get_feature, make_projector
from segkd.types import FeatureInfos, Step


def hint_loss(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over positions and channels of (f^student − f^teacher)².

    Romero et al., 2015 (arXiv 1412.6550), equation 3. The student's feature comes from a trained projector, such as
    `nn.Conv2d(64, 512, 1)`, whose parameters belong to the optimizer too.

    Args:
        student: a feature, mapped to the teacher's channels, B C h w.
        teacher: a feature, B C h w.
        valid: the positions that count, B H W bool at any resolution, by default all.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 64, 45, 60), torch.randn(2, 512, 45, 60)
        >>> hint_loss(nn.Conv2d(64, 512, 1)(student), teacher).shape
        torch.Size([])
    """
    student, teacher = prepare_maps(student, teacher, equal="channels")
    valid = prepare_valid(valid, student)
    difference = student - teacher
    return global_mean((difference.square().sum(1) * valid).sum(), valid.sum() * teacher.shape[1])


class Hint(Loss):
    """Squared difference of the teacher's features and a learned linear map of the student's.

        L = mean over positions and channels of (R f^student − f^teacher)²,   R: C' × C, learned

    FitNets: Romero et al., 2015 (arXiv 1412.6550), equation 3; in Liu et al., 2019, table 2, it is MIMIC. The teacher's map is
    resized to the student's. Padded positions do not count.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> loss = Hint()
        >>> loss.setup(features, features)
        >>> loss(step).shape
        torch.Size([])

    Args:
        weight: 10, CIRKD's (train_fitnet.sh), on the same mean. The paper trains with nothing else first, and gives no weight.
        feature: name of the compared feature, in both networks.
    """

    needs_teacher_classes = False
    exemptions: ClassVar[Mapping[str, str]] = {
        "zero_at_equality": "the projector first has to learn that the features are equal"
    }

    def __init__(self, weight: float = 10.0, feature: str = "encoder") -> None:
        super().__init__(weight)
        self.feature = feature
        self.projector: nn.Module = nn.Identity()

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check the features and create the projector."""
        assert teacher is not None
        self.projector = make_projector(
            get_feature(student, self.feature, "student"), get_feature(teacher, self.feature, "teacher")
        )

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, valid = align_features(step, self.feature, self.feature)
        return hint_loss(self.projector(student), teacher, valid)
