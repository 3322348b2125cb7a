"""Timing of a training step inside Lightning, of its parts, and of the bare networks, on the same batches."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from segkd.builders.networks import apply_speedups
from segkd.config.training import TrainSettings
from segkd.distillation.distiller import Distiller
from segkd.distillation.phases import Phase
from segkd.models.profiling import synchronize
from segkd.types import IGNORE_INDEX, Batch, Step

BARE, WHOLE = "bare networks", "whole step"


class Clock:
    """Elapsed seconds by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the context, until the device has finished it."""
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name].append(time.perf_counter() - start)


class InterleavedTimer(pl.Callback):
    """After each training step, time the bare networks and the parts of a step, each on its own copy of the student."""

    def __init__(self, distiller: Distiller, settings: TrainSettings, clock: Clock) -> None:
        self.clock, self.use_bf16 = clock, settings.trainer.precision == "bf16-mixed"
        shared: dict[int, Any] = {id(distiller.teacher): distiller.teacher}
        self.bare, self.parts = (copy.deepcopy(distiller, shared).to(clock.device).train() for _ in range(2))
        for twin in (self.bare, self.parts):
            apply_speedups(twin.student, settings.trainer)  # a copy is not compiled
        self.bare_optimizer = self.bare.optimizer_factories["student"](list(self.bare.student.parameters()))
        self.optimizers = self.parts.configure_optimizers()
        self.running: AbstractContextManager[None] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop the clock of the whole step, time the rest, and start it for the next step."""
        if self.running is not None:
            self.running.__exit__(None, None, None)
        with self.clock(BARE):
            self._run_bare_networks(batch)
        self._time_parts(batch)
        self.running = self.clock(WHOLE)
        self.running.__enter__()

    def _use_precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.clock.device.type, torch.bfloat16, enabled=self.use_bf16)

    def _run_bare_networks(self, batch: Batch) -> None:
        with self._use_precision():
            if self.bare.teacher is not None:
                self.bare.teacher(batch.images)
            output = self.bare.student(batch.images)
        logits = output.logits_at((batch.target.shape[-2], batch.target.shape[-1])).float()
        loss = F.cross_entropy(logits, batch.target, ignore_index=IGNORE_INDEX)
        self.bare_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.bare_optimizer.step()

    def _time_parts(self, batch: Batch) -> None:
        teacher = None
        with self._use_precision():
            if self.parts.teacher is not None:
                with self.clock("teacher"):
                    teacher = self.parts.teacher(batch.images)
            with self.clock("student, forward"):
                student = self.parts.student(batch.images)
        step = Step(batch, student, teacher, progress=1.0)
        for phase, optimizer in zip(self.parts.phases, self.optimizers, strict=True):
            if phase.name == "student":
                self._time_student_phase(optimizer, step)
            else:
                self._time_phase(phase, optimizer, step)

    def _time_phase(self, phase: Phase, optimizer: torch.optim.Optimizer, step: Step) -> None:
        with self.clock(phase.name):
            for repeat in range(phase.repeats):
                with self._use_precision():
                    total, _ = phase.objective(step._replace(repeat=repeat))
                optimizer.zero_grad()
                total.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def _time_student_phase(self, optimizer: torch.optim.Optimizer, step: Step) -> None:
        losses, adversary = self.parts.losses, self.parts.adversary
        weighted = []
        with self._use_precision():
            for name, loss in losses.named_losses():
                with self.clock(f"loss {name}"):
                    weighted.append(losses.get_weights()[name] * loss(step))
            if adversary is not None:
                with self.clock("loss adversarial"):
                    weighted.append(adversary.student_loss(step)[0])
        optimizer.zero_grad()
        with self.clock("backward"):
            torch.stack(weighted).sum().backward()  # type: ignore[no-untyped-call]
        with self.clock("optimizer"):
            optimizer.step()
