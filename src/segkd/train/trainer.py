"""Build Lightning's Trainer."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import DDPStrategy

from segkd.config.training import TrainerSettings, TrainSettings
from segkd.train.callbacks.epoch_lines import EpochBar, EpochLines
from segkd.train.callbacks.gradient_shares import GradientShares
from segkd.train.callbacks.image_panels import ImagePanels
from segkd.train.callbacks.own import OwnCallbacks
from segkd.train.callbacks.resumable_checkpoint import BeforeBatches, ResumableCheckpoint
from segkd.train.check_settings import check_devices, uses_several_processes
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.train.checkpointing.lightning_internals import choose_environment, disable_sigterm_broadcast
from segkd.train.checkpointing.state import State
from segkd.train.loggers.guarded import GuardedLogger
from segkd.train.loggers.wandb import WandbLogger
from segkd.train.run_folder import RunFolder
from segkd.utils.devices import resolve_device
from segkd.utils.signals import GracefulShutdown

_IGNORED_WARNINGS = (
    ".*does not have many workers.*",
    ".*LeafSpec.* is deprecated",  # Lightning's own use of PyTorch
    ".*number of training batches.*smaller than the logging interval.*",
    ".*recommended to use `self.log.*sync_dist=True.*",  # the confusion matrix is of all processes already
    ".*find_unused_parameters=True was specified.*",  # it depends on the losses whether all parameters are used
    ".*broadcast_buffers.* is deprecated.*",
)


def build_run_trainer(
    settings: TrainSettings,
    run: RunFolder,
    own: OwnCallbacks,
    files: CheckpointFiles,
    fingerprint: State,
    state: State | None,
    shutdown: GracefulShutdown,
) -> tuple[pl.Trainer, ResumableCheckpoint]:
    """Return the Trainer of a run with its loggers and callbacks, and the callback that keeps the run resumable."""
    schedule = settings.checkpoint
    checkpoint = ResumableCheckpoint(
        files, fingerprint, schedule.every_steps, schedule.every_minutes, shutdown, state, own
    )
    panels = [
        ImagePanels(cast("GuardedLogger", logger), settings.wandb.panels_every, settings.wandb.panels)
        for logger in run.loggers
        if isinstance(logger, WandbLogger)
    ]
    return build_trainer(
        settings.trainer, run.directory, run.loggers, checkpoint, [*panels, *own.by_name.values()]
    ), checkpoint


def build_trainer(
    settings: TrainerSettings,
    directory: Path,
    loggers: Sequence[Logger],
    checkpoint: ResumableCheckpoint | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Return the Trainer, without what Lightning would do wrong for two optimizers or when asked to stop.

    Raises:
        UserError: the machine lacks the accelerator, or has fewer devices than `trainer.devices`.
    """
    check_devices(settings)
    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    own_bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    has_bar = settings.progress and sys.stderr.isatty() and not own_bars
    checkpoint = checkpoint or ResumableCheckpoint(CheckpointFiles(directory))
    required = [BeforeBatches(checkpoint), checkpoint, *callbacks]
    trainer = pl.Trainer(
        accelerator=resolve_device(settings.accelerator, key="trainer.accelerator").type,
        devices=1
        if settings.devices is None or (settings.devices, settings.accelerator) == ("auto", "cpu")
        else settings.devices,
        num_nodes=settings.num_nodes or 1,
        strategy=choose_strategy(settings),
        precision=settings.precision,
        max_epochs=settings.max_epochs,
        check_val_every_n_epoch=settings.validate_every,
        log_every_n_steps=settings.log_every,
        limit_train_batches=settings.limit_train_batches,
        limit_val_batches=settings.limit_val_batches,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # or the metric's state from a validation before the fit could not be updated in the fit
        logger=list(loggers),
        callbacks=[*required, *_build_optional_callbacks(settings, has_bar)],
        enable_progress_bar=has_bar or bool(own_bars),
        enable_model_summary=False,
        default_root_dir=directory,
        plugins=choose_environment(),
    )
    disable_sigterm_broadcast(trainer)
    return trainer


def choose_strategy(settings: TrainerSettings) -> DDPStrategy | str:
    """Return how several processes work together: their gradients are averaged."""
    # The discriminator's phase leaves the student unused and the student's the discriminator. BatchNorm's statistics differ
    # between processes until the Distiller averages them, and broadcasting them would tie evaluations of unequal length together.
    return (
        DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
        if uses_several_processes(settings)
        else "auto"
    )


def _build_optional_callbacks(settings: TrainerSettings, has_bar: bool) -> list[pl.Callback]:
    callbacks: list[pl.Callback] = []
    if settings.log_gradient_shares_every is not None:
        callbacks.append(GradientShares(settings.log_gradient_shares_every))
    # Twice a second; as often as Lightning would, the bar takes a quarter of a small network's time.
    callbacks.append(EpochBar(refresh_rate=2, console_kwargs={"stderr": True}) if has_bar else EpochLines())
    return callbacks
