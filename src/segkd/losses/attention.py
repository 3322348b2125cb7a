"""Attention transfer: the student is active where the teacher is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.types import Step


class Attention(FeatureLoss):
    """Squared distance of the two networks' attention maps, each of length 1.

        L = mean over images of ‖a^student / ‖a^student‖ − a^teacher / ‖a^teacher‖‖²,   a_i = Σ_c f_ci² of place i

    Zagoruyko & Komodakis, 2017 (arXiv 1612.03928), equation 2 with p = 2, squared as in their code. Maps are B C h w; only
    sums over channels are compared, so the channels may differ. The teacher's map is resized to the student's. Padded places
    have no attention; an image counts where one of its places does. The authors' code divides by the places of the map
    besides, and so weighs a large crop less; here it is the same at any crop.

    Args:
        weight: 1.2, which is CIRKD's 10⁴ (train_at.sh) on the mean over the 64 × 128 places of its Cityscapes crops.
        feature: the features that are compared, of both networks.
    """

    def __init__(self, weight: float = 1.2, feature: str = "encoder") -> None:
        super().__init__(weight, feature)

    def forward(self, step: Step) -> Tensor:
        ours, theirs, counted = align_features(step, self.feature, self.feature)
        distance = (_attention(ours, counted) - _attention(theirs, counted)).square().sum()
        return global_mean(distance, counted.flatten(1).any(1).sum())


def _attention(features: Tensor, counted: Tensor) -> Tensor:
    """The attention map of length 1, B hw."""
    return F.normalize((features.square().sum(1) * counted).flatten(1), dim=1)
