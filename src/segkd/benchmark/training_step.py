"""`mode=step`: where the time of a training step goes, beside what the bare networks take."""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from segkd.benchmark.result import BenchmarkResult, Table, environment_info, format_iqr, format_milliseconds
from segkd.build.datamodule import build_datamodule, get_crop_size
from segkd.build.distiller import build_distiller
from segkd.build.networks import apply_speedups
from segkd.config.schema import TrainSettings
from segkd.distillation.distiller import Distiller
from segkd.distillation.phases import Phase
from segkd.errors import UserError
from segkd.models.profiling import synchronize
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.train.trainer import build_trainer
from segkd.types import IGNORE_INDEX, Batch, Step
from segkd.utils.devices import resolve_device
from segkd.utils.tables import Rows

BARE, WHOLE, DATA = "bare networks", "whole step", "data"

HELD = 8
"""Batches that are loaded before, and come again."""


def benchmark_training_step(settings: TrainSettings, repeats: int, warmup: int) -> BenchmarkResult:
    """The time of a whole step, of the bare networks, and of each part of a step; these take turns, on the same batches.

    - The *whole step* is a real run's, in Lightning, with everything that a run does between two batches but loading the second.
    - The *bare networks*: the teacher's pass, the student's, cross-entropy at the labels' size, the backward pass and the update.
    - The *parts* are a step taken apart. What the whole step takes beyond them is Lightning, logging, the guard and the
      moving average.
    - *Data* is what the loader takes for a batch; its workers hide as much of it as there are free cores.
    """
    if settings.trainer.micro_batches > 1:
        raise UserError("mode=step measures whole batches; leave trainer.micro_batches out")
    data = build_datamodule(settings)
    distiller, found = build_distiller(settings, data)
    print(*found, sep="\n", end="\n" * bool(found), file=sys.stderr)
    device = resolve_device(settings.trainer.accelerator)
    clock = Clock(device)
    held: list[Batch] = []
    for _ in range(2):  # the first starts the workers
        loading = iter(data.train_dataloader())
        next(loading)
        while len(held) < HELD:
            with clock(DATA):
                batch = next(loading, None)
            if batch is None:
                break
            held.append(batch)
    held = held or list(islice(data.train_dataloader(), 1))
    turns = warmup + repeats
    once = {"max_epochs": 1, "limit_train_batches": None, "progress": False, "log_gradient_shares_every": None}
    warnings.filterwarnings("ignore", message="You defined a `validation_step` but")
    watch = _InterleavedTimer(distiller, settings, clock)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            settings.trainer.model_copy(update=once), Path(folder), [MetricsFileLogger(Path(folder))]
        )
        trainer.callbacks.insert(0, watch)  # type: ignore[attr-defined]
        again = [held[turn % len(held)] for turn in range(turns + 1)]
        trainer.fit(distiller, DataLoader(again, batch_size=None))  # type: ignore[arg-type]
    taken = {name: seconds if name == DATA else seconds[-repeats:] for name, seconds in clock.taken.items()}
    crop = get_crop_size(settings, data.train.source)
    where = environment_info(crop, repeats, warmup, device) | {
        "batch_size": settings.data.batch_size,
        "precision": settings.trainer.precision,
        "workers": settings.data.workers,
    }
    title = (
        f"a step of {settings.data.batch_size} crops of {crop[0]}×{crop[1]}, {settings.trainer.precision}; "
        f"{where['device']}, {where['threads']} threads"
    )
    ratio = statistics.median(w / b for w, b in zip(taken[WHOLE], taken[BARE], strict=True))
    facts = {name: {"median_ms": format_milliseconds(s), "quartiles_ms": format_iqr(s)} for name, s in taken.items()}
    outcome = f"the whole step takes {ratio:.2f} times as long as the bare networks (median of {repeats} pairs)"
    return BenchmarkResult([Table(title, format_rows(taken))], {**where, "ratio": ratio, "times": facts}, outcome)


class Clock:
    """Seconds by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.taken: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        synchronize(self.device)
        started = time.perf_counter()
        yield
        synchronize(self.device)
        self.taken[name].append(time.perf_counter() - started)


class _InterleavedTimer(pl.Callback):
    """After each step of the run, the bare networks and the parts, each on a copy of the student of its own."""

    def __init__(self, distiller: Distiller, settings: TrainSettings, clock: Clock) -> None:
        self.clock, self.half = clock, settings.trainer.precision == "bf16-mixed"
        shared: dict[int, Any] = {id(distiller.teacher): distiller.teacher}
        self.bare, self.apart = (copy.deepcopy(distiller, shared).to(clock.device).train() for _ in range(2))
        for one in (self.bare, self.apart):
            apply_speedups(one.student, settings.trainer)  # a copy is not compiled
        self.bare_optimizer = self.bare.optimizer_factories["student"](list(self.bare.student.parameters()))
        self.optimizers = self.apart.configure_optimizers()
        self.running: AbstractContextManager[None] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.running is not None:
            self.running.__exit__(None, None, None)
        with self.clock(BARE):
            self._bare(batch)
        self._apart(batch)
        self.running = self.clock(WHOLE)
        self.running.__enter__()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.clock.device.type, torch.bfloat16, enabled=self.half)

    def _bare(self, batch: Batch) -> None:
        with self._autocast():
            if self.bare.teacher is not None:
                self.bare.teacher(batch.images)
            said = self.bare.student(batch.images)
        logits = said.logits_at((batch.target.shape[-2], batch.target.shape[-1])).float()
        loss = F.cross_entropy(logits, batch.target, ignore_index=IGNORE_INDEX)
        self.bare_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.bare_optimizer.step()

    def _apart(self, batch: Batch) -> None:
        clock, whole = self.clock, self.apart
        theirs = None
        with self._autocast():
            if whole.teacher is not None:
                with clock("teacher"):
                    theirs = whole.teacher(batch.images)
            with clock("student, forward"):
                ours = whole.student(batch.images)
        step = Step(batch, ours, theirs, progress=1.0)
        for phase, optimizer in zip(whole.phases, self.optimizers, strict=True):
            self._phase(phase, optimizer, step)

    def _phase(self, phase: Phase, optimizer: torch.optim.Optimizer, step: Step) -> None:
        clock, whole = self.clock, self.apart
        if phase.name != "student":
            with clock(phase.name):
                for repeat in range(phase.repeats):
                    with self._autocast():
                        total, _ = phase.objective(step._replace(repeat=repeat))
                    optimizer.zero_grad()
                    total.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
            return
        weighted = []
        with self._autocast():
            for name, loss in whole.losses.named():
                with clock(f"loss {name}"):
                    weighted.append(whole.losses.weights()[name] * loss(step))
            if whole.adversary is not None:
                with clock("loss holistic"):
                    weighted.append(whole.adversary.student_loss(step)[0])
        optimizer.zero_grad()
        with clock("backward"):
            torch.stack(weighted).sum().backward()  # type: ignore[no-untyped-call]
        with clock("optimizer"):
            optimizer.step()


def format_rows(taken: dict[str, list[float]]) -> Rows:
    """The table of times: the whole, the bare networks, the parts with their shares of the whole, what is left, and data."""
    whole = format_milliseconds(taken[WHOLE])
    parts = [name for name in taken if name not in (WHOLE, BARE, DATA)]
    table = [["", "ms", "middle half", "share of the step"]]
    for name in (WHOLE, BARE, *parts):
        first, third = format_iqr(taken[name])
        share = "" if name == BARE else f"{format_milliseconds(taken[name]) / whole:.1%}"
        table.append([name, f"{format_milliseconds(taken[name]):.1f}", f"{first:.1f} – {third:.1f}", share])
    rest = whole - sum(format_milliseconds(taken[name]) for name in parts)
    table.append(["all else", f"{rest:.1f}", "", f"{rest / whole:.1%}"])
    if taken.get(DATA):
        first, third = format_iqr(taken[DATA])
        table.append(
            [f"{DATA}, beside the step", f"{format_milliseconds(taken[DATA]):.1f}", f"{first:.1f} – {third:.1f}", ""]
        )
    return table
