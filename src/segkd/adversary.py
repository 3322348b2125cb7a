"""Holistic distillation: a critic learns to tell the student's maps from the teacher's, the student to pass for the teacher.

The two opposed losses stand side by side; the form of the game (Wasserstein with gradient penalty, or hinge) is a part that is passed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.losses.base import global_mean, tap_of, teacher_of, wide
from segkd.models.discriminator import Discriminator
from segkd.models.layers import uniform
from segkd.types import Step, Taps, resize

Terms = dict[str, Tensor]

ORDERS, SEEN = ("critic_first", "student_first"), ("probabilities", "logits")

_EPSILON = 1e-12  # the square root of zero has no gradient


class Form(ABC):
    """How critic scores become the critic's loss."""

    penalty: float = 0.0

    @abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Per-sample loss of the critic, B, from its scores of the teacher's and the student's maps."""


class Wasserstein(Form):
    """D(student) − D(teacher), with a penalty on the critic's slope (WGAN-GP; Gulrajani et al., 2017, arXiv 1704.00028).

    Args:
        penalty: weight of the mean of (‖∇D‖ − 1)² between student and teacher maps.
    """

    def __init__(self, penalty: float = 10.0) -> None:
        self.penalty = penalty

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real


class Hinge(Form):
    """max(0, 1 − D(teacher)) + max(0, 1 + D(student)); bounded without a penalty.

    Args:
        penalty: as for `Wasserstein`, if wanted.
    """

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = penalty

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
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
        critic_steps: updates of the critic per update of the student, on the same maps.
        order: whose update comes first, `critic_first` (the paper) or `student_first` (the code of the journal version).
        sees: what the critic gets, `probabilities` (the conference version) or `logits` (the journal version's code).
        tap: the student's class scores that the critic sees; of the teacher it sees the logits, at their size.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        form: Form,
        weight: float = 0.001,
        critic_steps: int = 1,
        order: str = "critic_first",
        sees: str = "probabilities",
        tap: str = "scores",
    ) -> None:
        if critic_steps < 1:
            raise ValueError(f"critic_steps must be 1 or more, not {critic_steps}")
        if not weight >= 0:
            raise ValueError(f"weight must be 0 or more, not {weight}: a negative one would teach the opposite")
        if order not in ORDERS:
            raise ValueError(f"order is {' or '.join(ORDERS)}, not '{order}'")
        if sees not in SEEN:
            raise ValueError(f"sees is {' or '.join(SEEN)}, not '{sees}'")
        super().__init__()
        self.discriminator = discriminator
        self.form = form
        self.weight = weight
        self.critic_steps = critic_steps
        self.order = order
        self.sees = sees
        self.tap = tap

    def connect(self, student: Taps, teacher: Taps | None, crop_size: tuple[int, int]) -> None:
        """Check the taps and that the critic can see what it gets.

        Raises:
            UserError: no teacher, no such tap, other classes, or maps too small for the critic.
        """
        if teacher is None:
            raise UserError("adversary=holistic needs a teacher; give model@teacher=NAME and teacher.checkpoint=FILE")
        ours, theirs = tap_of(student, self.tap, "student"), tap_of(teacher, "scores", "teacher")
        if ours.channels != theirs.channels:
            raise UserError(
                f"the student's tap '{self.tap}' has {ours.channels} channels, and the teacher scores {theirs.channels} classes; "
                "take a tap that holds class scores, and a teacher of the same classes"
            )
        least = Discriminator.smallest * ours.stride
        if min(crop_size) < least:
            raise UserError(
                f"data.crop_size={list(crop_size)} gives the critic maps of 1/{ours.stride}, and it takes {Discriminator.smallest}×"
                f"{Discriminator.smallest} and more; use crops of {least} pixels at least, or adversary=none"
            )

    def student_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """The weighted loss of the student, and the critic's mean score of it."""
        with torch.autocast(step.student.logits.device.type, enabled=False):
            score = self._mean(self._judge(self._maps(step)[0], step))
        return -self.weight * score, {"holistic": -score}

    def discriminator_loss(self, step: Step) -> tuple[Tensor, Terms]:
        """The loss of the critic with its parts: scores, their distance, and the slope penalty."""
        with torch.autocast(step.student.logits.device.type, enabled=False):
            fake, real = self._maps(step)
            fake = fake.detach()
            images = torch.cat([step.batch.images, step.batch.images])
            scores_real, scores_fake = self.discriminator.train()(torch.cat([real, fake]), images).chunk(2)
            loss = self._mean(self.form.critic(scores_real, scores_fake))
            terms = {"critic/teacher": self._mean(scores_real), "critic/student": self._mean(scores_fake)}
            if self.form.penalty:
                penalty = self._mean(self._slopes(real, fake, step).sub(1).square())
                loss = loss + self.form.penalty * penalty
                terms["critic/penalty"] = penalty
        return loss, {**terms, "discriminator": loss}

    def _slopes(self, real: Tensor, fake: Tensor, step: Step) -> Tensor:
        """‖∇D‖ at a random point between the maps of each sample, B."""
        mix = uniform(step.batch.keys, 1, salt=1000 + step.draw).to(real)[:, :, None, None]
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self._judge(between, step).sum(), between, create_graph=True)
        return (slope.square().sum((1, 2, 3)) + _EPSILON).sqrt()

    def _judge(self, maps: Tensor, step: Step) -> Tensor:
        # In evaluation mode the power iteration stands still; nothing else in the critic depends on the mode.
        scores: Tensor = self.discriminator.eval()(maps, step.batch.images)
        return scores

    def _maps(self, step: Step) -> tuple[Tensor, Tensor]:
        """Class probabilities, or logits, of student and teacher, B K h w, at the student's size."""
        teacher = teacher_of(step)
        ours = wide(step.student.taps[self.tap])
        theirs = resize(wide(teacher.logits), (ours.shape[-2], ours.shape[-1]), teacher.align_corners)
        if self.sees == "probabilities":
            ours, theirs = ours.softmax(1), theirs.softmax(1)
        return ours, theirs.detach()

    @staticmethod
    def _mean(values: Tensor) -> Tensor:
        return global_mean(values.sum(), torch.tensor(float(len(values)), device=values.device))
