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
        losses: by name; the names are those of the logged curves.
    """

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.is_set_up = False

    def named_losses(self) -> Iterator[tuple[str, Loss]]:
        """Yield the losses with their names."""
        for name, loss in self.losses.items():
            assert isinstance(loss, Loss)
            yield name, loss

    @property
    def extra_classes(self) -> int:
        """Outputs that the student needs beyond the classes of the dataset."""
        return max(loss.extra_classes for _, loss in self.named_losses())

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Set up every loss.

        Raises:
            UserError: a loss does not fit, or needs a teacher and there is none; the message names the loss.
        """
        for name, loss in self.named_losses():
            if loss.needs_teacher and teacher is None:
                raise UserError(
                    f"loss '{name}' needs a teacher; give model@teacher=NAME and teacher.checkpoint=FILE, or leave it out"
                )
            try:
                loss.setup(student, teacher)
            except UserError as error:
                raise UserError(f"loss '{name}': {error}") from None
        self.is_set_up = True

    def get_weights(self) -> dict[str, float]:
        """Return the weight of each loss; 1 where its default depends on features and `setup` has not run yet."""
        return {name: 1.0 if loss.weight is None else loss.weight for name, loss in self.named_losses()}

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted total and the raw value of each loss."""
        terms = {name: loss(step) for name, loss in self.named_losses()}
        total = torch.stack([weight * terms[name] for name, weight in self.get_weights().items()]).sum()
        return total, terms
