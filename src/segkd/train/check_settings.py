"""Check the settings of a training before any data is read."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from segkd.config.training import TrainerSettings, TrainSettings
from segkd.errors import UserError
from segkd.runs.layout import LAST_CHECKPOINT
from segkd.utils.devices import resolve_device


def check_settings(settings: TrainSettings, directory: Path) -> None:
    """Check that the settings fit together and fit the machine, and that no run is overwritten.

    Raises:
        UserError: one of these checks fails.
    """
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
    if on_gpu and settings.devices != "auto" and settings.devices > count:
        raise UserError(
            f"trainer.devices={settings.devices}, but PyTorch sees {count} GPU{'s' * (count != 1)}; lower it, or use trainer.devices=auto"
        )
    if settings.sync_batchnorm and uses_several_processes(settings) and not on_gpu:
        raise UserError("trainer.sync_batchnorm=true needs GPUs; leave it out on a CPU")


def uses_several_processes(settings: TrainerSettings) -> bool:
    """Return whether the run has more than one process."""
    if settings.devices == "auto" and settings.num_nodes == 1:
        device = resolve_device(settings.accelerator, key="trainer.accelerator")
        return device.type == "cuda" and torch.cuda.device_count() > 1
    return settings.devices != 1 or settings.num_nodes > 1


def is_multirun() -> bool:
    """Return whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _check_sweep(settings: TrainSettings) -> None:
    if settings.dry_run:
        raise UserError("a sweep (-m) makes folders, and dry_run=true makes none; look at one job of it at a time")
    if uses_several_processes(settings.trainer):
        raise UserError(
            "a sweep (-m) with several devices would start the whole sweep again on each of them; use trainer.devices=1 in sweeps, "
            "or call the command once for each run"
        )
