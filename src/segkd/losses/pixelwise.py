"""Pixel-wise distillation: the class probabilities of each pixel follow the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.checks import check_temperature, prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, check_same_num_classes
from segkd.losses.tensors import downsample_mask, get_size
from segkd.types import IGNORE_INDEX, FeatureInfos, Step


def pixelwise_loss(
    student_logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Return T² · mean over pixels of KL(softmax(teacher / T) ‖ softmax(student / T)).

    Liu et al., 2019 (arXiv 1903.04197), equation 1, with the temperature of Hinton et al., 2015.

    Args:
        student_logits: B K h w.
        teacher_logits: B K h w.
        valid: the pixels that count, B H W bool at any resolution, by default all.
        temperature: T.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 11, 45, 60), torch.randn(2, 11, 45, 60)
        >>> pixelwise_loss(student, teacher, temperature=4.0).shape
        torch.Size([])
    """
    check_temperature(temperature)
    student, teacher = prepare_maps(student_logits, teacher_logits, equal="classes")
    valid = prepare_valid(valid, student)
    log_q = F.log_softmax(student / temperature, 1)
    log_p = F.log_softmax(teacher / temperature, 1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return temperature**2 * global_mean((divergence * valid).sum(), valid.sum())


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
        check_temperature(temperature)
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
            valid = valid & downsample_mask(labeled, get_size(valid))
        return pixelwise_loss(student, teacher, valid, self.temperature)
