"""Where a run computes: on what, in how many processes, and whether the machine has it."""

from __future__ import annotations

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from segkd.config import TrainerSettings
from segkd.errors import UserError


def several(settings: TrainerSettings) -> bool:
    """Whether the run has more than one process."""
    if settings.devices == "auto" and settings.num_nodes == 1:
        return device(settings.accelerator).type == "cuda" and torch.cuda.device_count() > 1
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
    on_gpu = device(settings.accelerator).type == "cuda"
    there = torch.cuda.device_count()
    if on_gpu and settings.devices != "auto" and settings.devices > there:
        raise UserError(
            f"trainer.devices={settings.devices}, but PyTorch sees {there} GPU{'s' * (there != 1)}; lower it, or use trainer.devices=auto"
        )
    if settings.sync_batchnorm and several(settings) and not on_gpu:
        raise UserError("trainer.sync_batchnorm=true works between GPUs alone; leave it out on a CPU")


def quicken(network: nn.Module, settings: TrainerSettings) -> None:
    """Lay its weights out, and compile it, in place, as the settings say; its values change by rounding alone."""
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        network.compile(dynamic=False)


def strategy(settings: TrainerSettings) -> DDPStrategy | str:
    """How several processes work together: their gradients are averaged."""
    # The critic's phase leaves the student unused and the student's the critic. BatchNorm's statistics differ between
    # processes until the Distiller averages them, and broadcasting them would tie evaluations of unequal length together.
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if several(settings) else "auto"


def device(accelerator: str) -> torch.device:
    """Where a command without a Trainer computes.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(f"accelerator={accelerator}, but PyTorch sees no CUDA device; use accelerator=cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
