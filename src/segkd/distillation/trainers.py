"""What the Distiller asks of Lightning's Trainer, which may be the user's own."""

from __future__ import annotations

import math
import warnings

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy

from segkd.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed")

_NEEDLESS_ADVICE = r".*recommended to use `self\.log\('val/.*sync_dist=True.*"


def check_trainer(trainer: pl.Trainer, has_two_phases: bool) -> None:
    """Check the trainer's precision and strategy, and silence an advice that does not apply.

    Args:
        trainer: Lightning's.
        has_two_phases: whether a discriminator is trained beside the student.

    Raises:
        UserError: they do not fit.
    """
    if trainer.precision not in PRECISIONS:
        raise UserError(
            f'the Distiller needs gradients that are not scaled, and float32 weights; give Trainer(precision="bf16-mixed") or '
            f'"32-true", not "{trainer.precision}"'
        )
    if has_two_phases and not _finds_unused_parameters(trainer):
        raise UserError(
            "with a discriminator each phase leaves the other's parameters unused; give "
            'Trainer(strategy="ddp_find_unused_parameters_true")'
        )
    # The confusion matrix is of all processes already.
    warnings.filterwarnings("ignore", message=_NEEDLESS_ADVICE)


def _finds_unused_parameters(trainer: pl.Trainer) -> bool:
    """Return whether a phase may leave parameters without a gradient; with a single process it always may."""
    strategy = trainer.strategy
    # The argument has no public attribute.
    return not isinstance(strategy, DDPStrategy) or bool(strategy._ddp_kwargs.get("find_unused_parameters"))


def count_batches(trainer: pl.Trainer, updates_per_batch: int) -> int:
    """Return the batches of a whole training, by the epochs and the steps that its trainer allows.

    Args:
        trainer: Lightning's, at the start of its fit; its `max_steps` counts optimizer steps.
        updates_per_batch: optimizer steps of a batch.

    Raises:
        UserError: the training has no end.
    """
    lengths = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        lengths.append(trainer.num_training_batches * trainer.max_epochs)
    if trainer.max_steps >= 0:
        lengths.append(math.ceil(trainer.max_steps / updates_per_batch))
    length = min(lengths, default=math.inf)
    if math.isinf(length):
        raise UserError(
            "the learning rate follows the length of the training, and this Trainer has no end; give Trainer(max_steps=N), "
            "or Distiller(total_steps=N)"
        )
    return max(1, int(length))
