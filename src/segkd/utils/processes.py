"""Which process of a distributed run this is, and what started the processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from lightning_utilities.core.rank_zero import rank_zero_only

_FIRST_SPECIAL_STEP = (
    0xFFFF_FFF0  # Slurm's steps of batch scripts, interactive shells and the like, which srun did not start
)


class Launcher(NamedTuple):
    """What started this process beside others of the same run."""

    name: str
    devices: int
    """Processes on each machine."""
    nodes: int
    """Machines."""
    processes: int
    """All of them; another number than devices × nodes where the machines have unequal shares."""


def is_rank_zero() -> bool:
    """Return whether this is the first process of all, or the only one; Lightning sets the rank when it is imported."""
    # Until it has a trainer, Lightning takes the first process of every machine for the first of all.
    is_first_node = "RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0"
    return is_first_node and getattr(rank_zero_only, "rank", None) in (0, None)


def find_launcher(environment: Mapping[str, str] = os.environ) -> Launcher | None:
    """Return torchrun or srun, if one of them started this process; None for a process that starts others itself.

    A shell or a notebook within a Slurm allocation has most of srun's variables, but not those of a step of its own; a step
    of one process is alone, whatever the allocation has.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        devices, nodes, processes = (int(environment[f"{part}WORLD_SIZE"]) for part in ("LOCAL_", "GROUP_", ""))
        return Launcher("torchrun", devices, nodes, processes)
    step = environment.get("SLURM_STEP_ID", "")
    if "SLURM_PROCID" not in environment or not step.isdigit() or int(step) >= _FIRST_SPECIAL_STEP:
        return None
    processes = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1"))
    nodes = int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES", "1"))
    return Launcher("srun", max(1, processes // nodes), nodes, processes) if processes > 1 else None
