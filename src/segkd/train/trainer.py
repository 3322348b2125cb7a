"""Build Lightning's Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import DDPStrategy

from segkd.config.schema import TrainerSettings
from segkd.errors import UserError
from segkd.train.callbacks.gradient_shares import GradientShares
from segkd.train.callbacks.resumable_checkpoint import ResumableCheckpoint
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.utils.devices import resolve_device


def build_trainer(
    settings: TrainerSettings,
    directory: Path,
    loggers: Sequence[Logger],
    last_checkpoint: ResumableCheckpoint | None = None,
    watchers: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Lightning's Trainer, with what it would get wrong for two players, or when asked to stop, switched off.

    Raises:
        UserError: an accelerator that is not there, or fewer devices than asked for.
    """
    check_devices(settings)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own use of PyTorch
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    callbacks: list[pl.Callback] = [last_checkpoint or ResumableCheckpoint(CheckpointFiles(directory)), *watchers]
    if settings.log_gradient_shares_every is not None:
        callbacks.append(GradientShares(settings.log_gradient_shares_every))
    if settings.progress:
        # Twice a second; as often as Lightning would, it takes a quarter of a small network's time.
        callbacks.append(RichProgressBar(refresh_rate=2, console_kwargs={"stderr": True}))
    made = pl.Trainer(
        accelerator=resolve_device(settings.accelerator).type,
        devices=settings.devices if settings.devices != "auto" or settings.accelerator != "cpu" else 1,
        num_nodes=settings.num_nodes,
        strategy=choose_strategy(settings),
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.max_epochs,
        check_val_every_n_epoch=settings.validate_every,
        log_every_n_steps=settings.log_every,
        limit_train_batches=settings.limit_train_batches,
        limit_val_batches=settings.limit_val_batches,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # what a validation before the fit leaves in the metric could not be added to within it
        logger=list(loggers),
        callbacks=callbacks,
        enable_progress_bar=settings.progress,
        enable_model_summary=False,
        default_root_dir=directory,
        # Its own requeueing saves within a signal's handler, in the middle of whatever is going on.
        plugins=SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None,
    )
    # Before each batch Lightning asks rank 0 whether it has had a SIGTERM; LastCheckpoint asks all of them.
    made.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return made


def is_distributed(settings: TrainerSettings) -> bool:
    """Whether the run has more than one process."""
    if settings.devices == "auto" and settings.num_nodes == 1:
        return resolve_device(settings.accelerator).type == "cuda" and torch.cuda.device_count() > 1
    return settings.devices != 1 or settings.num_nodes > 1


def check_devices(settings: TrainerSettings) -> None:
    """Refuse what the machine does not have, or what does not go together.

    Raises:
        UserError: no GPU, or fewer than asked for; statistics over processes without GPUs; parts of a batch by a compiled network.
    """
    if settings.compile and settings.micro_batches > 1:
        raise UserError(
            "trainer.compile=true and trainer.micro_batches=N do not go together yet; leave one of them out"
        )
    on_gpu = resolve_device(settings.accelerator).type == "cuda"
    there = torch.cuda.device_count()
    if on_gpu and settings.devices != "auto" and settings.devices > there:
        raise UserError(
            f"trainer.devices={settings.devices}, but PyTorch sees {there} GPU{'s' * (there != 1)}; lower it, or use trainer.devices=auto"
        )
    if settings.sync_batchnorm and is_distributed(settings) and not on_gpu:
        raise UserError("trainer.sync_batchnorm=true works between GPUs alone; leave it out on a CPU")


def choose_strategy(settings: TrainerSettings) -> DDPStrategy | str:
    """How several processes work together: their gradients are averaged."""
    # The critic's phase leaves the student unused and the student's the critic. BatchNorm's statistics differ between
    # processes until the Distiller averages them, and broadcasting them would tie evaluations of unequal length together.
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if is_distributed(settings) else "auto"
