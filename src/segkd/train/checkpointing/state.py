"""All that a run is, as a value: what a checkpoint holds, and how it is put back.

segkd        the version that wrote it
student      what rebuilds the network (`to_spec`)
state_dict   of the Distiller: student, critic, projectors, memories, EMA, step_count
optimizers   by phase
seconds      that it took
epochs       whole ones, their validation included; one batch more than them is within the next
recipe       what a run that continues this one must share with it
processes    of each: BatchNorm's statistics, which differ between processes within an epoch, and its random numbers
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor

from segkd import __version__
from segkd.distillation.distiller import Distiller
from segkd.models.checkpoint_io import to_spec

State = dict[str, Any]
KEYS = {"student", "state_dict", "optimizers", "epochs", "recipe", "processes"}


def collect_state(trainer: pl.Trainer, distiller: Distiller, epochs: int, recipe: State, seconds: float) -> State:
    """The run as it is; every process must ask."""
    names = [phase.name for phase in distiller.phases]
    return {
        "segkd": __version__,
        "student": to_spec(distiller.student),
        "state_dict": distiller.state_dict(),
        "optimizers": {name: held.state_dict() for name, held in zip(names, trainer.optimizers, strict=True)},
        "epochs": epochs,
        "seconds": seconds,
        "recipe": recipe,
        "processes": _gather_ranks(trainer, _own_state(distiller)),
    }


def count_steps(state: State) -> int:
    """Batches that the run had seen."""
    return int(state["state_dict"]["step_count"])


def restore_rank_state(trainer: pl.Trainer, distiller: Distiller, state: State) -> None:
    """Put back what differs between processes.

    Where there are more or fewer of them than there were, each gets the mean of the statistics and goes on with new random numbers.
    """
    saved = state["processes"]
    known = len(saved) == trainer.world_size
    for name, buffer in _statistics(distiller).items():
        kept = [process["statistics"][name] for process in saved]
        buffer.copy_(kept[trainer.global_rank] if known else torch.stack(kept).mean(0))
    if known:
        torch.set_rng_state(saved[trainer.global_rank]["random"])
        if distiller.device.type == "cuda" and saved[trainer.global_rank]["random_cuda"] is not None:
            torch.cuda.set_rng_state(saved[trainer.global_rank]["random_cuda"], distiller.device)


def restore_optimizers(trainer: pl.Trainer, distiller: Distiller, state: State) -> None:
    """Put back the optimisers, each by the name of its phase."""
    for phase, optimizer in zip(distiller.phases, trainer.optimizers, strict=True):
        optimizer.load_state_dict(state["optimizers"][phase.name])


def fast_forward(trainer: pl.Trainer, epochs: int, batch: int, steps: int) -> None:
    """Let Lightning's loops believe that they have come so far: they count epochs, batches of the epoch, and rows to log."""
    loop, stages = trainer.fit_loop, ("ready", "started", "processed", "completed")
    for counts in (loop.epoch_progress.current, loop.epoch_progress.total):
        counts.load_state_dict(dict.fromkeys(stages, epochs))
    within = loop.epoch_loop
    for counts in (within.batch_progress.current, within.batch_progress.total):
        counts.load_state_dict(dict.fromkeys(stages, batch))
    within._batches_that_stepped = steps
    within.restarting = batch > 0


def _own_state(distiller: Distiller) -> State:
    cuda = distiller.device.type == "cuda"
    return {
        "statistics": {name: buffer.detach().cpu().clone() for name, buffer in _statistics(distiller).items()},
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(distiller.device) if cuda else None,
    }


def _statistics(distiller: Distiller) -> dict[str, Tensor]:
    return {
        name: b
        for name, b in distiller.named_buffers()
        if name.startswith(("student.", "ema.")) and b.is_floating_point()
    }


def _gather_ranks(trainer: pl.Trainer, own: State) -> list[State]:
    if trainer.world_size == 1:
        return [own]
    found: list[State] = [{} for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(found, own)
    return found
