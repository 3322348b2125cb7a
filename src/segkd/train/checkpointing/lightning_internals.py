"""All access to Lightning's private attributes: check this file when Lightning changes."""

from __future__ import annotations

import os
import signal

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from segkd.utils.processes import find_launcher


def fast_forward(trainer: pl.Trainer, epochs: int, batch: int, steps: int) -> None:
    """Set the loops' counters to so many epochs, batches of the next epoch, and optimizer steps that were logged."""
    loop, stages = trainer.fit_loop, ("ready", "started", "processed", "completed")
    for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
        progress.load_state_dict(dict.fromkeys(stages, epochs))
    epoch_loop = loop.epoch_loop
    for progress in (epoch_loop.batch_progress.current, epoch_loop.batch_progress.total):
        progress.load_state_dict(dict.fromkeys(stages, batch))
    epoch_loop._batches_that_stepped = steps
    epoch_loop.restarting = batch > 0


def disable_sigterm_broadcast(trainer: pl.Trainer) -> None:
    """Stop Lightning asking rank 0 for a SIGTERM before each batch: `ResumableCheckpoint` asks all ranks."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


class SrunEnvironment(SLURMEnvironment):
    """The processes of a step that srun started, without requeueing, which saves within a signal handler.

    Lightning would check the header of the batch script; `resolve_devices` has checked the step itself.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_used() -> None: ...

    @staticmethod
    def _validate_srun_variables() -> None: ...

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accept the settings."""


def choose_environment() -> ClusterEnvironment | None:
    """Return what tells processes of each other; None for Lightning's choice.

    Lightning takes any process within a Slurm allocation for one of several, and a script or shell there would wait for
    others that nobody starts.
    """
    launcher = find_launcher()
    if launcher is not None:
        return SrunEnvironment() if launcher.name == "srun" else None
    return LightningEnvironment() if "SLURM_NTASKS" in os.environ else None


def is_started_by_lightning(trainer: pl.Trainer) -> bool:
    """Return whether Lightning started this process from another that runs the same command."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0


def kill_processes(trainer: pl.Trainer) -> None:
    """Kill the processes that Lightning started from this one."""
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(signal.SIGKILL)
