"""Attention transfer: the student is active where the teacher is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.checks import prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.types import Step


def attention_loss(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over images of ‖u^student − u^teacher‖², with u = a / ‖a‖ and a_i = Σ_c f_ci² at position i.

    Zagoruyko & Komodakis, 2017 (arXiv 1612.03928), equation 2 with p = 2, squared.

    Args:
        student: a feature, B C h w.
        teacher: a feature, B C' h w.
        valid: the positions that have attention, B H W bool at any resolution, by default all.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 64, 45, 60), torch.randn(2, 512, 45, 60)
        >>> attention_loss(student, teacher).shape
        torch.Size([])
    """
    student, teacher = prepare_maps(student, teacher)
    valid = prepare_valid(valid, student)
    student_map, teacher_map = (
        F.normalize((maps.square().sum(1) * valid).flatten(1), dim=1) for maps in (student, teacher)
    )
    return global_mean((student_map - teacher_map).square().sum(), valid.flatten(1).any(1).sum())


class Attention(FeatureLoss):
    """Squared distance of the two networks' attention maps, each of length 1.

        L = mean over images of ‖a^student / ‖a^student‖ − a^teacher / ‖a^teacher‖‖²,   a_i = Σ_c f_ci² at position i

    Zagoruyko & Komodakis, 2017 (arXiv 1612.03928), equation 2 with p = 2, squared as in their code. Only sums over channels
    are compared, so the channels may differ. The teacher's map is resized to the student's. Padded positions have no
    attention; an image counts where one of its positions does. The authors' code also divides by the number of positions,
    which gives a large crop a smaller loss; here the loss does not depend on the crop size.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> Attention()(step).shape
        torch.Size([])

    Args:
        weight: 1.2, which is CIRKD's 10⁴ (train_at.sh) on the mean over the 64 × 128 positions of its Cityscapes crops.
        feature: name of the compared feature, in both networks.
    """

    def __init__(self, weight: float = 1.2, feature: str = "encoder") -> None:
        super().__init__(weight, feature)

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        return attention_loss(*align_features(step, self.feature, self.feature))
