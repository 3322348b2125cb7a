"""Holistic distillation: a critic learns to tell the student's maps from the teacher's, the student to pass for the teacher.

The two opposed losses stand side by side; the form of the game (Wasserstein with gradient penalty, or hinge) is a part that is passed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.losses.distributed import global_mean
from segkd.losses.features import get_feature, require_teacher
from segkd.losses.functional import at_least_float32
from segkd.models.discriminator import Discriminator
from segkd.models.layers import draw_uniform
from segkd.types import FeatureInfos, Step, resize

Terms = dict[str, Tensor]

UPDATE_ORDERS, DISCRIMINATOR_INPUTS = ("discriminator", "student"), ("probabilities", "logits")

_EPSILON = 1e-12  # the square root of zero has no gradient


class GANLoss(ABC):
    """How critic scores become the critic's loss."""

    gradient_penalty_weight: float = 0.0

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Per-sample loss of the critic, B, from its scores of the teacher's and the student's maps."""


class Wasserstein(GANLoss):
    """D(student) − D(teacher), with a penalty on the critic's slope (WGAN-GP; Gulrajani et al., 2017, arXiv 1704.00028).

    Args:
        gradient_penalty_weight: weight of the mean of (‖∇D‖ − 1)² between student and teacher maps.
    """

    def __init__(self, gradient_penalty_weight: float = 10.0) -> None:
        self.gradient_penalty_weight = gradient_penalty_weight

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real


class Hinge(GANLoss):
    """max(0, 1 − D(teacher)) + max(0, 1 + D(student)); bounded without a penalty.

    Args:
        gradient_penalty_weight: as for `Wasserstein`, if wanted.
    """

    def __init__(self, gradient_penalty_weight: float = 0.0) -> None:
        self.gradient_penalty_weight = gradient_penalty_weight

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real) + F.relu(1 + fake)


class Adversary(nn.Module):
    """The critic and both sides of its game with the student.

        student:        L = −weight · mean D(softmax Q_student | image)
        discriminator:  L = mean form(D(softmax Q_teacher | image), D(softmax Q_student | image)) + penalty · mean (‖∇D‖ − 1)²

    Liu et al., 2019, equations 3 and 4. The penalty is on the class maps alone, per sample, in float32, at points drawn from the
    samples' keys, so that it is the same on any number of processes. The critic's power iteration advances once per
    update of the critic and never in the student's phase.

    Args:
        discriminator: the critic.
        form: `Wasserstein` or `Hinge`.
        weight: of the student's term. 0.001 as in IFVD, TorchDistiller (by SKD's first author) and CIRKD; the paper has 0.1.
        n_critic: updates of the critic per update of the student, on the same maps.
        update_first: whose update comes first, `discriminator` (the paper) or `student` (the code of the journal version).
        discriminator_input: what the critic gets, `probabilities` (the conference version) or `logits` (the journal version's code).
        feature: the student's class scores that the critic sees; of the teacher it sees the logits, at their size.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        form: GANLoss,
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
        self.form = form
        self.weight = weight
        self.n_critic = n_critic
        self.update_first = update_first
        self.discriminator_input = discriminator_input
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None, crop_size: tuple[int, int]) -> None:
        """Check the features and that the critic can see what it gets.

        Raises:
            UserError: no teacher, no such feature, other classes, or maps too small for the critic.
        """
        if teacher is None:
            raise UserError("adversary=holistic needs a teacher; give model@teacher=NAME and teacher.checkpoint=FILE")
        ours, theirs = get_feature(student, self.feature, "student"), get_feature(teacher, "kd_logits", "teacher")
        if ours.channels != theirs.channels:
            raise UserError(
                f"the student's feature '{self.feature}' has {ours.channels} channels, and the teacher scores {theirs.channels} classes; "
                "take a feature that holds class scores, and a teacher of the same classes"
            )
        least = Discriminator.min_size * ours.stride
        if min(crop_size) < least:
            raise UserError(
                f"data.crop_size={list(crop_size)} gives the critic maps of 1/{ours.stride}, and it takes {Discriminator.min_size}×"
                f"{Discriminator.min_size} and more; use crops of {least} pixels at least, or adversary=none"
            )

    def student_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """The weighted loss of the student, and the critic's mean score of it."""
        with torch.autocast(step.student.logits.device.type, enabled=False):
            score = self._mean(self._discriminate(self._maps(step)[0], step))
        return -self.weight * score, {"adversarial": -score}

    def discriminator_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """The loss of the critic with its parts: scores, their distance, and the slope penalty."""
        with torch.autocast(step.student.logits.device.type, enabled=False):
            fake, real = self._maps(step)
            fake = fake.detach()
            images = torch.cat([step.batch.images, step.batch.images])
            scores_real, scores_fake = self.discriminator.train()(torch.cat([real, fake]), images).chunk(2)
            loss = self._mean(self.form.discriminator_loss(scores_real, scores_fake))
            terms = {"discriminator/teacher": self._mean(scores_real), "discriminator/student": self._mean(scores_fake)}
            if self.form.gradient_penalty_weight:
                penalty = self._mean(self._gradient_norms(real, fake, step).sub(1).square())
                loss = loss + self.form.gradient_penalty_weight * penalty
                terms["discriminator/penalty"] = penalty
        return loss, {**terms, "discriminator": loss}

    def _gradient_norms(self, real: Tensor, fake: Tensor, step: Step) -> Tensor:
        """‖∇D‖ at a random point between the maps of each sample, B."""
        mix = draw_uniform(step.batch.seeds, 1, salt=1000 + step.repeat).to(real)[:, :, None, None]
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self._discriminate(between, step).sum(), between, create_graph=True)
        return (slope.square().sum((1, 2, 3)) + _EPSILON).sqrt()

    def _discriminate(self, maps: Tensor, step: Step) -> Tensor:
        # In evaluation mode the power iteration stands still; nothing else in the critic depends on the mode.
        scores: Tensor = self.discriminator.eval()(maps, step.batch.images)
        return scores

    def _maps(self, step: Step) -> tuple[Tensor, Tensor]:
        """Class probabilities, or logits, of student and teacher, B K h w, at the student's size."""
        teacher = require_teacher(step)
        ours = at_least_float32(step.student.features[self.feature])
        theirs = resize(at_least_float32(teacher.logits), (ours.shape[-2], ours.shape[-1]), teacher.align_corners)
        if self.discriminator_input == "probabilities":
            ours, theirs = ours.softmax(1), theirs.softmax(1)
        return ours, theirs.detach()

    @staticmethod
    def _mean(values: Tensor) -> Tensor:
        return global_mean(values.sum(), torch.tensor(float(len(values)), device=values.device))
