"""`segkd.train` in a process of its own that is hit while it trains: `HIT="RANK:STEP:WHAT …" python hit.py ARGUMENTS`.

WHAT is the name of a signal that the process sends itself, or `raise` for a fault of the process. FORGET names a function of
`last_checkpoint` that a resumed run is to leave out.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

import segkd.callbacks.last_checkpoint
from segkd.cli import launch
from segkd.distiller import Distiller
from segkd.train import train
from segkd.types import Batch

observe = Distiller.observe
HITS = [hit.split(":") for hit in os.environ.get("HIT", "").split()]


def hit(self: Distiller, batch: Batch) -> Any:
    """`observe`, in the middle of a step."""
    for rank, step, what in HITS:
        if (self.trainer.global_rank, int(self.step_count)) == (int(rank), int(step)):
            if what == "raise":
                raise ZeroDivisionError("this process is at fault")
            os.kill(os.getpid(), getattr(signal, what))
    return observe(self, batch)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Distiller.observe = hit
    if forgotten := os.environ.get("FORGET"):
        setattr(segkd.callbacks.last_checkpoint, forgotten, lambda *_: None)
    launch(train, "train")
