"""Pixel-wise distillation: the class probabilities of each pixel follow the teacher's."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.features import align_features, check_same_num_classes
from segkd.losses.functional import downsample_mask, pixelwise_kl
from segkd.types import IGNORE_INDEX, FeatureInfos, Step


class Pixelwise(Loss):
    """Kullback–Leibler divergence between the class probabilities of teacher and student at each pixel.

        L = T² · mean over pixels of Σ_k p_k (log p_k − log q_k),   p = softmax(Q_teacher / T), q = softmax(Q_student / T)

    Liu et al., 2019, equation 1; T² keeps the size of the gradient (Hinton et al., 2015). The teacher's map is its final
    logits, resized to the student's: an inner classifier of a teacher may never have been trained (that of Liu et al.'s
    ESPNet of 65.1 mIoU has 1.6). Every pixel counts that augmentation did not pad, void included, as in the paper.

    Shape:
        - student `feature`: B K h w; teacher logits: B K h' w'.
        - output: scalar.

    Example:
        >>> Pixelwise(temperature=2.0)(step).shape
        torch.Size([])

    Args:
        weight: None for 10/K: the paper's λ = 10 on `KLDivLoss`'s mean over B·K·h·w, which is what the code that trained the
            published students computes (cvpr_19, utils/criterion.py, CriterionKD; IFVD and TorchDistiller alike).
        temperature: T.
        feature: the student's class logits to compare.
        mask_void: count labeled pixels only.
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
        """Check that both networks have the same classes, and set the default weight."""
        assert teacher is not None
        num_classes = check_same_num_classes(student, teacher, self.feature)
        if self.weight is None:
            self.weight = 10 / num_classes

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, valid = align_features(step, self.feature, "kd_logits")
        if self.mask_void:
            labeled = step.batch.target != IGNORE_INDEX
            valid = valid & downsample_mask(labeled, (valid.shape[-2], valid.shape[-1]))
        return pixelwise_kl(student, teacher, valid, self.temperature)
