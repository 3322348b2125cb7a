"""Channel-wise distillation: each channel looks where the teacher's looks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, check_same_num_classes, get_feature, make_projector
from segkd.types import FeatureInfos, Step


class Channelwise(Loss):
    """Kullback–Leibler divergence of a channel's distribution over places, the teacher's from the student's.

        L = T² · mean over images and channels of Σ_i p_i (log p_i − log q_i),   p = softmax over places i of t_i / T, q of s_i / T

    Shu et al., 2021 (arXiv 2011.13256). Maps are B C h w; the teacher's is resized to the student's. Of
    `kd_logits` the teacher's side is its logits. Features of another width go through a learned 1×1 projector first. Padded
    places take no part in the softmax; a channel counts where one place of its image does.

    Args:
        weight: None for 3 on `kd_logits` and 50 on features, as in the paper; 3 is in its code too (irfanICMLL/TorchDistiller,
            SemSeg-distill, README), both are in CIRKD (train_cwd.sh).
        temperature: T; 4 as in that README.
        feature: the maps that are compared, of both networks.
    """

    def __init__(self, weight: float | None = None, temperature: float = 4.0, feature: str = "kd_logits") -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        super().__init__(weight)
        self.temperature = temperature
        self.feature = feature
        self.projector: nn.Module = nn.Identity()

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        if self.feature == "kd_logits":
            check_same_num_classes(student, teacher, self.feature)
        else:
            ours, theirs = get_feature(student, self.feature, "student"), get_feature(teacher, self.feature, "teacher")
            if ours.channels != theirs.channels:
                self.projector = make_projector(ours, theirs)
        if self.weight is None:
            self.weight = 3.0 if self.feature == "kd_logits" else 50.0

    def forward(self, step: Step) -> Tensor:
        ours, theirs, counted = align_features(step, self.feature, self.feature)
        with torch.autocast(ours.device.type, enabled=False):
            ours = self.projector(ours)
        log_q, log_p = self._over_places(ours, counted), self._over_places(theirs, counted)
        divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        channels = counted.flatten(1).any(1).sum() * ours.shape[1]
        return self.temperature**2 * global_mean(divergence, channels)

    def _over_places(self, maps: Tensor, counted: Tensor) -> Tensor:
        """Log-probabilities of the places, B C hw."""
        # Not −∞: zero probability times ∞ − ∞ is no number.
        softened = (maps / self.temperature).masked_fill(~counted[:, None], torch.finfo(maps.dtype).min)
        return F.log_softmax(softened.flatten(2), 2)
