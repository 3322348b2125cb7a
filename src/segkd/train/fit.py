"""Run Lightning's loops: from the start, or from the batch at which a run stopped."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.train.callbacks.resumable_checkpoint import ResumableCheckpoint
from segkd.train.checkpointing.lightning_internals import fast_forward, is_started_by_lightning, kill_processes


def fit(
    trainer: pl.Trainer,
    distiller: Distiller,
    datamodule: SegmentationDataModule,
    steps_per_epoch: int,
    state: dict[str, Any] | None,
    checkpoint: ResumableCheckpoint,
) -> None:
    """Train, and validate the last weights whatever `validate_every` is: they are the result.

    A callback may end the training early (`trainer.should_stop = True`), also within an epoch.

    Args:
        trainer: Lightning's.
        distiller: what is trained; its weights are already those of `state`.
        datamodule: training and validation batches.
        steps_per_epoch: batches of an epoch.
        state: the checkpoint to resume from; None for a new run.
        checkpoint: the callback that keeps the run resumable.
    """
    try:
        if state is not None:
            _resume(trainer, distiller, datamodule, steps_per_epoch, state["epochs"])
        trainer.fit(distiller, datamodule=datamodule)
        if checkpoint.validated_steps != int(distiller.step_count) or "val/miou" not in trainer.callback_metrics:
            trainer.validate(distiller, datamodule=datamodule, verbose=False)
    except Exception as error:
        checkpoint.own.explain(error)
        kill_processes(trainer)  # they would wait for this one: on GPUs for half an hour
        raise
    except SystemExit:
        if is_started_by_lightning(trainer):
            # Lightning would kill the parent, which has still to finish, for any other code.
            raise SystemExit(0) from None
        raise


def _resume(
    trainer: pl.Trainer, distiller: Distiller, datamodule: SegmentationDataModule, steps_per_epoch: int, epochs: int
) -> None:
    """Fast-forward the loops past the completed epochs and the batches already processed of the next."""
    steps = int(distiller.step_count)
    batch = steps - epochs * steps_per_epoch
    if batch == steps_per_epoch:  # only the end of that epoch is left
        fast_forward(trainer, epochs, 0, steps - 1)
        epochs, batch = epochs + 1, 0
        if epochs % trainer.check_val_every_n_epoch == 0 and epochs < trainer.max_epochs:  # type: ignore[operator]
            trainer.validate(distiller, datamodule=datamodule, verbose=False)
    fast_forward(trainer, epochs, batch, steps)
    datamodule.start = epochs, batch
