"""A loss to be checked: how to build it, and the steps to build it for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segkd.check_part.findings import ContractFault, require
from segkd.check_part.steps import get_feature_infos, make_step
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.types import NetworkOutput, Step


@dataclass(frozen=True)
class LossCase:
    """A loss, and the sizes of the steps on which it is checked."""

    build: Callable[..., Loss]
    """The class, or any function that returns a new loss; called without arguments, or with `weight`."""
    classes: int = 5
    features: tuple[str, ...] = ()
    """Names of the features that it reads, besides `encoder` and `kd_logits`."""

    def make_step(self, **sizes: Any) -> Step:
        """Make a step of random maps; see `steps.make_step`."""
        return make_step(**{"classes": self.classes, "names": self.features, **sizes})

    def make_loss(self, step: Step, seed: int = 0) -> Loss:
        """Build the loss and set it up for a step; its random weights follow from the seed."""
        torch.manual_seed(seed)
        loss = self.build()
        loss.setup(get_feature_infos(step.student), None if step.teacher is None else get_feature_infos(step.teacher))
        return loss

    def compute(self, step: Step) -> Tensor:
        """Return the value of a new loss on a step."""
        value: Tensor = self.make_loss(step)(step)
        return value

    def check_can_be_set_up(self) -> None:
        """Check that the loss can be built and fits the steps.

        Raises:
            UserError: it is no `Loss`, or its `setup` refuses the features of the steps.
        """
        loss, step = self.build(), self.make_step()
        if not isinstance(loss, Loss):
            raise UserError(f"{type(loss).__name__} is no loss; make it a subclass of segkd.losses.base.Loss")
        try:
            self.make_loss(step)
        except UserError as error:
            raise UserError(
                f"{type(loss).__name__} refuses networks of {self.classes} classes with the features "
                f"{', '.join(step.student.features)}: {error}; give those it needs with features=[NAME,…] and classes=N"
            ) from None


def require_close(value: Tensor, expected: Tensor, what: str, cure: str) -> None:
    """Check that two values are equal up to rounding.

    Args:
        value: a scalar, or a map of which the greatest difference is told.
        expected: what it must be.
        what: subject of the sentence, such as "the loss of a batch given twice".
        cure: its end.

    Raises:
        ContractFault: they differ.
    """
    try:
        torch.testing.assert_close(value, expected)
    except AssertionError:
        greatest = int((value - expected).abs().argmax())
        value, expected = value.flatten()[greatest], expected.flatten()[greatest]
        numbers = f"is {format_number(value)} instead of {format_number(expected)}"
        dtypes = f" ({value.dtype} and {expected.dtype})" if value.dtype != expected.dtype else ""
        raise ContractFault(f"{what} {numbers}{dtypes}; {cure}") from None


def require_finite(gradients: list[Tensor], what: str) -> None:
    """Raise a ContractFault if a gradient is NaN or infinite."""
    broken = sum(int((~gradient.isfinite()).sum()) for gradient in gradients)
    require(not broken, f"{broken} values of the gradient are NaN or infinite {what}")


def format_number(value: Tensor) -> str:
    """Return a scalar with as many digits as tell it from another."""
    number = float(value.detach())
    return f"{number:.7g}" if math.isfinite(number) else str(number)


def get_teacher(step: Step) -> NetworkOutput:
    """Return the teacher's output, which every step of a check has."""
    assert step.teacher is not None
    return step.teacher
