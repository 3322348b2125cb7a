"""Channel-wise distillation: each channel is active where the teacher's is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.losses.base import Loss
from segkd.losses.checks import check_temperature, prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, check_same_num_classes, get_feature, make_projector
from segkd.types import FeatureInfos, Step


def channelwise_loss(student: Tensor, teacher: Tensor, valid: Tensor | None = None, temperature: float = 4.0) -> Tensor:
    """Return T² · mean over images and channels of KL(p ‖ q), with p, q the softmax over positions of a channel over T.

    Shu et al., 2021 (arXiv 2011.13256).

    Args:
        student: logits or a feature, B C h w.
        teacher: the same of the teacher, B C h w, of as many channels.
        valid: the positions that are in the softmax, B H W bool at any resolution, by default all.
        temperature: T.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 11, 45, 60), torch.randn(2, 11, 45, 60)
        >>> channelwise_loss(student, teacher).shape
        torch.Size([])
    """
    check_temperature(temperature)
    student, teacher = prepare_maps(student, teacher, equal="channels")
    valid = prepare_valid(valid, student)
    log_q, log_p = (_log_softmax_over_positions(maps / temperature, valid) for maps in (student, teacher))
    divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    channels = valid.flatten(1).any(1).sum() * student.shape[1]
    return temperature**2 * global_mean(divergence, channels)


def _log_softmax_over_positions(maps: Tensor, valid: Tensor) -> Tensor:
    """Return log-probabilities of the positions of each channel, B C hw."""
    # Not −∞: zero probability times ∞ − ∞ is NaN.
    masked = maps.masked_fill(~valid[:, None], torch.finfo(maps.dtype).min)
    return F.log_softmax(masked.flatten(2), 2)


class Channelwise(Loss):
    """Kullback–Leibler divergence between the teacher's and the student's distribution of a channel over positions.

        L = T² · mean over images and channels of Σ_i p_i (log p_i − log q_i),
        p = softmax over positions i of t_i / T, q of s_i / T

    Shu et al., 2021 (arXiv 2011.13256). The teacher's map is resized to the student's; for `kd_logits` it is the teacher's
    logits. Features of another width go through a learned 1×1 projector first. Padded positions are left out of the
    softmax; a channel counts where one position of its image does.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w', with C' = C for `kd_logits`.
        - output: scalar.

    Example:
        >>> Channelwise(temperature=4.0)(step).shape
        torch.Size([])

    Args:
        weight: None for 3 on `kd_logits` and 50 on features, as in the paper; 3 is in its code too (irfanICMLL/TorchDistiller,
            SemSeg-distill, README), both are in CIRKD (train_cwd.sh).
        temperature: T; 4 as in that README.
        feature: name of the compared maps, in both networks.
    """

    def __init__(self, weight: float | None = None, temperature: float = 4.0, feature: str = "kd_logits") -> None:
        check_temperature(temperature)
        super().__init__(weight)
        self.temperature = temperature
        self.feature = feature
        self.needs_teacher_classes = feature == "kd_logits"
        self.projector: nn.Module = nn.Identity()

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check the maps, create the projector where widths differ, and set the default weight."""
        assert teacher is not None
        if self.feature == "kd_logits":
            check_same_num_classes(student, teacher, self.feature)
        else:
            student_feature = get_feature(student, self.feature, "student")
            teacher_feature = get_feature(teacher, self.feature, "teacher")
            if student_feature.channels != teacher_feature.channels:
                self.projector = make_projector(student_feature, teacher_feature)
        if self.weight is None:
            self.weight = 3.0 if self.feature == "kd_logits" else 50.0

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, valid = align_features(step, self.feature, self.feature)
        return channelwise_loss(self.projector(student), teacher, valid, self.temperature)
