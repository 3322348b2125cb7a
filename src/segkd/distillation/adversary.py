"""Holistic distillation: a discriminator learns to tell the student's maps from the teacher's, the student to fool it.

The two opposed losses stand side by side; the GAN loss (Wasserstein with gradient penalty, or hinge) is passed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.losses.distributed import global_mean
from segkd.losses.features import check_same_num_classes, require_teacher
from segkd.losses.tensors import at_least_float32
from segkd.models.discriminator import Discriminator
from segkd.models.layers import draw_uniform
from segkd.types import FeatureInfos, Step, resize

Terms = dict[str, Tensor]

UPDATE_ORDERS, DISCRIMINATOR_INPUTS = ("discriminator", "student"), ("probabilities", "logits")

_EPSILON = 1e-12  # the square root of zero has no gradient


class GANLoss(ABC):
    """The discriminator's loss as a function of its scores."""

    gradient_penalty_weight: float = 0.0

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the loss of each sample, B, from the scores of the teacher's (real) and the student's (fake) maps."""


class Wasserstein(GANLoss):
    """D(student) − D(teacher), with a gradient penalty (WGAN-GP; Gulrajani et al., 2017, arXiv 1704.00028).

    Args:
        gradient_penalty_weight: weight of the mean of (‖∇D‖ − 1)² between student and teacher maps.
    """

    def __init__(self, gradient_penalty_weight: float = 10.0) -> None:
        self.gradient_penalty_weight = gradient_penalty_weight

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return D(student) − D(teacher)."""
        return fake - real


class Hinge(GANLoss):
    """max(0, 1 − D(teacher)) + max(0, 1 + D(student)); bounded without a penalty.

    Args:
        gradient_penalty_weight: as for `Wasserstein`; 0 for no penalty.
    """

    def __init__(self, gradient_penalty_weight: float = 0.0) -> None:
        self.gradient_penalty_weight = gradient_penalty_weight

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the hinge loss."""
        return F.relu(1 - real) + F.relu(1 + fake)


class Adversary(nn.Module):
    """The discriminator and both sides of its game with the student.

        student:        L = −weight · mean D(softmax Q_student | image)
        discriminator:  L = mean gan_loss(D(softmax Q_teacher | image), D(softmax Q_student | image)) + λ · mean (‖∇D‖ − 1)²

    with λ the GAN loss's `gradient_penalty_weight`.

    Liu et al., 2019, equations 3 and 4. The penalty is on the class maps alone, per sample, in float32, at points drawn from
    the samples' seeds, so that it is the same on any number of processes. The discriminator's power iteration advances once
    per update of the discriminator and never in the student's phase.

    Args:
        discriminator: the network that scores maps.
        gan_loss: `Wasserstein` or `Hinge`.
        weight: of the student's term. 0.001 as in IFVD, TorchDistiller (by SKD's first author) and CIRKD; the paper has 0.1.
        n_critic: updates of the discriminator per update of the student, on the same maps.
        update_first: `discriminator` (the paper) or `student` (the code of the journal version).
        discriminator_input: `probabilities` (the conference version) or `logits` (the journal version's code).
        feature: the student's class logits to score; of the teacher its final logits, at the student's size.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        gan_loss: GANLoss,
        weight: float = 0.001,
        n_critic: int = 1,
        update_first: str = "discriminator",
        discriminator_input: str = "probabilities",
        feature: str = "kd_logits",
    ) -> None:
        if n_critic < 1:
            raise ValueError(f"n_critic must be 1 or more, not {n_critic}")
        if not weight >= 0:
            raise ValueError(f"weight must be 0 or more, not {weight}: a negative one would teach the opposite")
        if update_first not in UPDATE_ORDERS:
            raise ValueError(f"update_first is {' or '.join(UPDATE_ORDERS)}, not '{update_first}'")
        if discriminator_input not in DISCRIMINATOR_INPUTS:
            raise ValueError(f"discriminator_input is {' or '.join(DISCRIMINATOR_INPUTS)}, not '{discriminator_input}'")
        super().__init__()
        self.discriminator = discriminator
        self.gan_loss = gan_loss
        self.weight = weight
        self.n_critic = n_critic
        self.update_first = update_first
        self.discriminator_input = discriminator_input
        self.feature = feature

    def setup(
        self, student: FeatureInfos, teacher: FeatureInfos | None, crop_size: tuple[int, int] | None = None
    ) -> None:
        """Check the features and, if the size of training images is known, that their maps are large enough.

        Raises:
            UserError: no teacher, no such feature, other classes, or too small maps.
        """
        if teacher is None:
            raise UserError("adversary=holistic needs a teacher; give model@teacher=NAME and teacher.checkpoint=FILE")
        check_same_num_classes(student, teacher, self.feature)
        if crop_size is not None:
            self.check_size(student, crop_size)

    def check_size(self, student: FeatureInfos, size: tuple[int, int]) -> None:
        """Check that training images give maps that are large enough for the discriminator.

        Args:
            student: the declared features of the student.
            size: height and width of the images.

        Raises:
            UserError: they do not.
        """
        stride, min_size = student[self.feature].stride, Discriminator.min_size
        if min(size) < min_size * stride:
            raise UserError(
                f"data.crop_size={list(size)} gives the discriminator maps of 1/{stride}, and it needs at least "
                f"{min_size}×{min_size}; use crops of at least {min_size * stride} pixels, or adversary=none"
            )

    def student_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """Return the student's weighted loss, and the raw term: the negative mean score of the student's maps."""
        with torch.autocast(step.student.logits.device.type, enabled=False):
            score = self._average(self._discriminate(self._select_maps(step)[0], step))
        return -self.weight * score, {"adversarial": -score}

    def discriminator_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """Return the discriminator's loss with its parts: mean scores, their distance, and the gradient penalty."""
        with torch.autocast(step.student.logits.device.type, enabled=False):
            fake, real = self._select_maps(step)
            fake = fake.detach()
            images = torch.cat([step.batch.images, step.batch.images])
            real_scores, fake_scores = self.discriminator.train()(torch.cat([real, fake]), images).chunk(2)
            loss = self._average(self.gan_loss.discriminator_loss(real_scores, fake_scores))
            terms = {
                "discriminator/teacher": self._average(real_scores),
                "discriminator/student": self._average(fake_scores),
            }
            if self.gan_loss.gradient_penalty_weight:
                penalty = self._average(self._compute_gradient_norms(real, fake, step).sub(1).square())
                loss = loss + self.gan_loss.gradient_penalty_weight * penalty
                terms["discriminator/penalty"] = penalty
        return loss, {**terms, "discriminator": loss}

    def _compute_gradient_norms(self, real: Tensor, fake: Tensor, step: Step) -> Tensor:
        """Return ‖∇D‖ at a random point between the maps of each sample, B."""
        mix = draw_uniform(step.batch.seeds, 1, salt=1000 + step.repeat).to(real)[:, :, None, None]
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(self._discriminate(between, step).sum(), between, create_graph=True)
        return (gradient.square().sum((1, 2, 3)) + _EPSILON).sqrt()

    def _discriminate(self, maps: Tensor, step: Step) -> Tensor:
        # In evaluation mode the power iteration stands still; nothing else in the discriminator depends on the mode.
        scores: Tensor = self.discriminator.eval()(maps, step.batch.images)
        return scores

    def _select_maps(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return class probabilities or logits of student and teacher, B K h w, at the student's size."""
        teacher_output = require_teacher(step)
        student = at_least_float32(step.student.features[self.feature])
        size = (student.shape[-2], student.shape[-1])
        teacher = resize(at_least_float32(teacher_output.logits), size, teacher_output.align_corners)
        if self.discriminator_input == "probabilities":
            student, teacher = student.softmax(1), teacher.softmax(1)
        return student, teacher.detach()

    @staticmethod
    def _average(values: Tensor) -> Tensor:
        return global_mean(values.sum(), torch.tensor(float(len(values)), device=values.device))
