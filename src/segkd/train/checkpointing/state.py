"""The state of a run, which a checkpoint holds.

- `segkd`: the version that wrote it
- `student`: what rebuilds the network (`to_spec`), and its classes
- `state_dict`: the Distiller's: student, discriminator, projectors, memories, EMA, step_count
- `optimizers`: by phase
- `seconds`: of training
- `epochs`: complete ones, validation included; further batches belong to the next
- `recipe`: the fingerprint that a run which resumes this one must share
- `processes`: of each rank, BatchNorm's statistics, which differ between ranks within an epoch, and its random state
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor

from segkd import __version__
from segkd.distillation.distiller import Distiller
from segkd.models.student_io import to_spec

State = dict[str, Any]
KEYS = {"student", "state_dict", "optimizers", "epochs", "recipe", "processes"}


def collect_state(trainer: pl.Trainer, distiller: Distiller, epochs: int, fingerprint: State, seconds: float) -> State:
    """Return the state of the run; every rank must call it."""
    names = [phase.name for phase in distiller.phases]
    optimizers = zip(names, trainer.optimizers, strict=True)
    return {
        "segkd": __version__,
        "student": {**to_spec(distiller.student), "classes": list(distiller.classes)},
        "state_dict": distiller.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers},
        "epochs": epochs,
        "seconds": seconds,
        "recipe": fingerprint,
        "processes": _gather_ranks(trainer, _collect_rank_state(distiller)),
    }


def count_steps(state: State) -> int:
    """Return the number of batches that the run has trained on."""
    return int(state["state_dict"]["step_count"])


def restore_rank_state(trainer: pl.Trainer, distiller: Distiller, state: State) -> None:
    """Restore what differs between ranks.

    With another number of ranks than before, each gets the mean of the statistics, and new random numbers.
    """
    saved = state["processes"]
    is_same_world = len(saved) == trainer.world_size
    for name, buffer in _get_statistics(distiller).items():
        values = [process["statistics"][name] for process in saved]
        buffer.copy_(values[trainer.global_rank] if is_same_world else torch.stack(values).mean(0))
    if is_same_world:
        own = saved[trainer.global_rank]
        torch.set_rng_state(own["random"])
        if distiller.device.type == "cuda" and own["random_cuda"] is not None:
            torch.cuda.set_rng_state(own["random_cuda"], distiller.device)


def restore_optimizers(trainer: pl.Trainer, distiller: Distiller, state: State) -> None:
    """Restore the optimizers, each by the name of its phase."""
    for phase, optimizer in zip(distiller.phases, trainer.optimizers, strict=True):
        optimizer.load_state_dict(state["optimizers"][phase.name])


def _collect_rank_state(distiller: Distiller) -> State:
    on_cuda = distiller.device.type == "cuda"
    return {
        "statistics": {name: buffer.detach().cpu().clone() for name, buffer in _get_statistics(distiller).items()},
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(distiller.device) if on_cuda else None,
    }


def _get_statistics(distiller: Distiller) -> dict[str, Tensor]:
    return {
        name: buffer
        for name, buffer in distiller.named_buffers()
        if name.startswith(("student.", "ema.")) and buffer.is_floating_point()
    }


def _gather_ranks(trainer: pl.Trainer, own: State) -> list[State]:
    if trainer.world_size == 1:
        return [own]
    states: list[State] = [{} for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(states, own)
    return states
