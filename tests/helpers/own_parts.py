"""Loggers and callbacks as a user writes them, with faults: a plugin for tests of `logger=` and `callbacks=`."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger

released = threading.Event()
"""Ends the calls that hang."""


def alter_everything() -> None:
    """Change what a process shares."""
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    os.environ["OWN_PARTS"] = "altered"
    os.environ.pop("HOME", None)
    os.chdir("/")
    warnings.simplefilter("error")
    sys.excepthook = sys.exit = print  # type: ignore[assignment]


class FaultyLogger(Logger):
    """Has a fault in one of its methods: `WHERE HOW`, as in `log_metrics raises`."""

    name, version = "faulty", ""

    def __init__(self, save_dir: str, fault: str = "none") -> None:
        super().__init__()
        self.folder, self.fault = Path(save_dir) / "faulty", fault
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.threads: set[int] = set()
        self.ended: list[str] = []
        self.folder.mkdir(exist_ok=True)
        self._act("init")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        assert "seed" in params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, metrics))
        self.threads.add(threading.get_ident())
        self._act("log_metrics")
        metrics.clear()  # it may be passed to others too
        with (self.folder / "rows").open("a") as file:
            file.write(f"{step}\n")

    def save(self) -> None:
        self._act("save")

    def finalize(self, status: str) -> None:
        self.ended.append(status)
        self._act("finalize")

    def _act(self, where: str) -> None:
        place, _, how = self.fault.partition(" ")
        if place != where:
            return
        match how:
            case "raises":
                raise ConnectionError("the server\nis down")
            case "exits":
                sys.exit(3)
            case "interrupts":
                raise KeyboardInterrupt
            case "hangs":
                released.wait()
            case "alters":
                alter_everything()
            case "lacks":
                raise ModuleNotFoundError("No module named 'own_server'", name="own_server")
            case "loses":
                shutil.rmtree(self.folder)


class Counter(pl.Callback):
    """Counts the batches that it has seen begin and end."""

    def __init__(self, plain: bool = True) -> None:
        self.plain, self.begun, self.ended, self.weights = plain, 0, 0, torch.zeros(2)

    def on_train_batch_start(self, *args: Any) -> None:
        self.begun += 1

    def on_train_batch_end(self, *args: Any) -> None:
        self.ended += 1
        self.weights += 1

    def state_dict(self) -> dict[str, Any]:
        state = {"begun": self.begun, "ended": self.ended, "weights": self.weights}
        return state if self.plain else {"path": Path()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begun, self.ended, self.weights = state["begun"], state["ended"], state["weights"]


class StopAfter(pl.Callback):
    """Ends the training after so many batches."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        trainer.should_stop = int(pl_module.step_count) == self.steps


class Raising(pl.Callback):
    """Divides by zero."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        _ = 1 / 0

    def on_save_checkpoint(self, *args: Any) -> None:
        """Never called."""
