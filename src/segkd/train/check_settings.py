"""Check the settings of a training before any data is read."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from segkd.config.training import TrainerSettings, TrainSettings
from segkd.errors import UserError
from segkd.runs.layout import LAST_CHECKPOINT
from segkd.train.loggers.build import check_loggers
from segkd.utils.devices import resolve_device
from segkd.utils.processes import Launcher, find_launcher


def resolve_devices(settings: TrainSettings) -> TrainSettings:
    """Return the settings with the devices and machines of torchrun or srun, or else one of each, where none are given.

    Raises:
        UserError: torchrun or srun has started another number of processes than is given.
    """
    trainer, launcher = settings.trainer, find_launcher()
    if launcher is None:
        resolved = {"devices": trainer.devices or 1, "num_nodes": trainer.num_nodes or 1}
    else:
        _check_launcher(trainer, launcher)
        resolved = {"devices": launcher.devices, "num_nodes": launcher.nodes}
    return settings.model_copy(update={"trainer": trainer.model_copy(update=resolved)})


def check_settings(settings: TrainSettings, directory: Path) -> None:
    """Check that the settings fit together and fit the machine, and that no run is overwritten.

    Raises:
        UserError: one of these checks fails.
    """
    check_loggers(settings.logger)
    if not settings.dry_run:
        check_devices(settings.trainer)
    if settings.data.unlabeled is None and settings.trainer.micro_batches > settings.data.batch_size:
        raise UserError(
            f"trainer.micro_batches={settings.trainer.micro_batches} is more than the {settings.data.batch_size} images of a batch; "
            "lower it, or raise data.batch_size"
        )
    if is_multirun():
        _check_sweep(settings)
    if (directory / LAST_CHECKPOINT).exists() and settings.resume is None and not settings.dry_run:
        raise UserError(f"{directory} already holds a run; choose another output_dir, or continue it with resume=auto")


def check_devices(settings: TrainerSettings) -> None:
    """Check that the machine has the devices, and that the settings allow them.

    Raises:
        UserError: there are fewer GPUs than `trainer.devices`, or settings exclude each other.
    """
    if settings.compile and settings.micro_batches > 1:
        raise UserError(
            "trainer.compile=true and trainer.micro_batches=N do not go together yet; leave one of them out"
        )
    on_gpu = resolve_device(settings.accelerator, key="trainer.accelerator").type == "cuda"
    count = torch.cuda.device_count()
    if on_gpu and isinstance(settings.devices, int) and settings.devices > count:
        sees = f"but PyTorch sees {count} GPU{'s' * (count != 1)}"
        if launcher := find_launcher():
            raise UserError(
                f"{launcher.name} started {launcher.devices} processes per machine, {sees}; start fewer, or show every process all "
                "GPUs of its machine (Slurm's --gpus-per-node, not --gpus-per-task)"
            )
        raise UserError(f"trainer.devices={settings.devices}, {sees}; lower it, or use trainer.devices=auto")
    if settings.sync_batchnorm and uses_several_processes(settings) and not on_gpu:
        raise UserError("trainer.sync_batchnorm=true needs GPUs; leave it out on a CPU")


def uses_several_processes(settings: TrainerSettings) -> bool:
    """Return whether the run has more than one process."""
    if settings.devices == "auto" and settings.num_nodes in (1, None):
        device = resolve_device(settings.accelerator, key="trainer.accelerator")
        return device.type == "cuda" and torch.cuda.device_count() > 1
    return settings.devices not in (1, None) or settings.num_nodes not in (1, None)


def check_length(checkpoint: Path, steps: int, total_steps: int, epochs: int) -> None:
    """Check that a resumed run is not longer already than it should become.

    Args:
        checkpoint: what it is resumed from.
        steps: that it has trained.
        total_steps: that it should have at its end.
        epochs: in which it should have them.

    Raises:
        UserError: it is longer.
    """
    if steps > total_steps:
        trained_epochs = math.ceil(steps * epochs / total_steps)
        raise UserError(
            f"{checkpoint} has trained {steps} steps, and trainer.max_epochs={epochs} asks for {total_steps}; "
            f"give trainer.max_epochs={trained_epochs} or more, or start a new run in another output_dir"
        )


def is_multirun() -> bool:
    """Return whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _check_launcher(settings: TrainerSettings, launcher: Launcher) -> None:
    if launcher.processes != launcher.devices * launcher.nodes:
        raise UserError(
            f"{launcher.name} started {launcher.processes} processes on {launcher.nodes} machines; start as many on each"
        )
    given = {"devices": settings.devices, "num_nodes": settings.num_nodes}
    started = {"devices": launcher.devices, "num_nodes": launcher.nodes}
    for key, value in given.items():
        if value not in (None, "auto", started[key]):
            raise UserError(
                f"{launcher.name} started {launcher.devices} processes per machine on {launcher.nodes} "
                f"machine{'s' * (launcher.nodes != 1)}, and trainer.{key}={value} is given; "
                f"leave trainer.{key} out, or give {started[key]}"
            )


def _check_sweep(settings: TrainSettings) -> None:
    if settings.dry_run:
        raise UserError("a sweep (-m) makes folders, and dry_run=true makes none; look at one job of it at a time")
    if uses_several_processes(settings.trainer):
        raise UserError(
            "a sweep (-m) with several devices would start the whole sweep again on each of them; use trainer.devices=1 in sweeps, "
            "or call the command once for each run"
        )
