"""Run `segkd.train` with faults: `FAULT="RANK:STEP:WHAT[:SECONDS] …" python fault_injection.py ARGUMENTS`.

STEP counts the steps of this process, from 0. WHAT is the name of a signal that the process sends itself, SECONDS later if they
are given, or `raise` for an exception. FORGET names a function of `resumable_checkpoint` that a resumed run skips.
"""

from __future__ import annotations

import itertools
import os
import signal
from threading import Timer
from typing import Any

import torch

import segkd.train.callbacks.resumable_checkpoint
from segkd.cli.launch import launch
from segkd.distillation.distiller import Distiller
from segkd.types import Batch

forward_networks = Distiller.forward_networks
FAULTS = [fault.split(":") for fault in os.environ.get("FAULT", "").split()]
STEPS = itertools.count()


def forward_with_faults(self: Distiller, batch: Batch) -> Any:
    """Do what `forward_networks` does, after the faults of this step."""
    current = next(STEPS)
    for rank, step, what, *seconds in FAULTS:
        if (self.trainer.global_rank, current) != (int(rank), int(step)):
            continue
        if what == "raise":
            raise ZeroDivisionError("this process is at fault")
        if seconds:
            Timer(float(seconds[0]), os.kill, (os.getpid(), getattr(signal, what))).start()
        else:
            os.kill(os.getpid(), getattr(signal, what))
    return forward_networks(self, batch)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Distiller.forward_networks = forward_with_faults
    if forgotten := os.environ.get("FORGET"):
        module = segkd.train.callbacks.resumable_checkpoint
        assert hasattr(module, forgotten), f"{module.__name__} has no {forgotten} to forget"
        setattr(module, forgotten, lambda *_: None)
    launch("train")
