"""Pixel-wise distillation: each pixel's class probabilities follow the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, check_same_num_classes
from segkd.losses.functional import downsample_mask
from segkd.types import IGNORE_INDEX, FeatureInfos, Step


class Pixelwise(Loss):
    """Kullback–Leibler divergence of the teacher's class probabilities from the student's, pixel by pixel.

        L = T² · mean over pixels of Σ_k p_k (log p_k − log q_k),   p = softmax(Q_teacher / T), q = softmax(Q_student / T)

    Liu et al., 2019, equation 1; T² keeps the gradient's size (Hinton et al., 2015). Maps are B K h w. The teacher's is its
    answer, the logits, resized to the student's: an inner classifier of a teacher may never have been trained (that of
    Liu et al.'s ESPNet of 65.1 mIoU has 1.6). Every pixel counts that augmentation did not pad, void included, as in the paper.

    Args:
        weight: None for 10/K: the paper's λ = 10 on `KLDivLoss`'s mean over B·K·h·w, which is what the code that trained the
            published students computes (cvpr_19, utils/criterion.py, CriterionKD; IFVD and TorchDistiller alike).
        temperature: T.
        feature: the student's class scores that are compared.
        mask_void: count labelled pixels only.
    """

    def __init__(
        self, weight: float | None = None, temperature: float = 1.0, feature: str = "kd_logits", mask_void: bool = False
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        super().__init__(weight)
        self.temperature = temperature
        self.feature = feature
        self.mask_void = mask_void

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        classes = check_same_num_classes(student, teacher, self.feature)
        if self.weight is None:
            self.weight = 10 / classes

    def forward(self, step: Step) -> Tensor:
        ours, theirs, counted = align_features(step, self.feature, "kd_logits")
        log_q = F.log_softmax(ours / self.temperature, 1)
        log_p = F.log_softmax(theirs / self.temperature, 1)
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
        if self.mask_void:
            labelled = step.batch.target != IGNORE_INDEX
            counted = counted & downsample_mask(labelled, (counted.shape[-2], counted.shape[-1]))
        return self.temperature**2 * global_mean((divergence * counted).sum(), counted.sum())
