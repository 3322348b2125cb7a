"""The objective of the student: named losses, weighted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.types import FeatureInfos, Step


class LossSum(nn.Module):
    """Σ weight · loss.

    Args:
        losses: by name; the names are those of the curves.
    """

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)

    def named(self) -> Iterator[tuple[str, Loss]]:
        """The losses with their names."""
        for name, loss in self.losses.items():
            assert isinstance(loss, Loss)
            yield name, loss

    @property
    def extra_classes(self) -> int:
        """Outputs that the student needs beyond the data set's classes."""
        return max(loss.extra_classes for _, loss in self.named())

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Connect every loss.

        Raises:
            UserError: one cannot be; says which. A loss that needs a teacher has none.
        """
        for name, loss in self.named():
            if loss.needs_teacher and teacher is None:
                raise UserError(
                    f"loss '{name}' needs a teacher; give model@teacher=NAME and teacher.checkpoint=FILE, or leave it out"
                )
            try:
                loss.setup(student, teacher)
            except UserError as error:
                raise UserError(f"loss '{name}': {error}") from None

    def weights(self) -> dict[str, float]:
        """Of each loss; 1 where its default depends on features and it is not connected yet."""
        return {name: 1.0 if loss.weight is None else loss.weight for name, loss in self.named()}

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted total, and each loss's raw value."""
        terms = {name: loss(step) for name, loss in self.named()}
        total = torch.stack([weight * terms[name] for name, weight in self.weights().items()]).sum()
        return total, terms
