"""`segkd.train` in a process of its own that is hit while it trains: `HIT="RANK:STEP:WHAT[:SECONDS] …" python hit.py ARGUMENTS`.

STEP counts the steps of this process, from 0. WHAT is the name of a signal that the process sends itself, so many SECONDS
later if they are given, or `raise` for a fault of the process. FORGET names a function of `last_checkpoint` that a resumed run is
to leave out.
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
HITS = [hit.split(":") for hit in os.environ.get("HIT", "").split()]
STEPS = itertools.count()


def hit(self: Distiller, batch: Batch) -> Any:
    """`forward_networks`, in the middle of a step."""
    now = next(STEPS)
    for rank, step, what, *seconds in HITS:
        if (self.trainer.global_rank, now) != (int(rank), int(step)):
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
    Distiller.forward_networks = hit
    if forgotten := os.environ.get("FORGET"):
        setattr(segkd.train.callbacks.resumable_checkpoint, forgotten, lambda *_: None)
    launch("train")
