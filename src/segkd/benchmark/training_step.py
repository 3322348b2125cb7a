"""`mode=step`: time of a training step, of its parts, and of the bare networks."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from itertools import islice
from pathlib import Path

from torch.utils.data import DataLoader

from segkd.benchmark.result import (
    BenchmarkResult,
    Table,
    compute_median_ms,
    describe_environment,
    format_machine,
    format_times,
    summarize_times,
)
from segkd.benchmark.step_timer import BARE, WHOLE, Clock, InterleavedTimer
from segkd.builders.datamodule import build_datamodule, get_crop_size
from segkd.builders.distiller import build_distiller
from segkd.config.training import TrainSettings
from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.train.trainer import build_trainer
from segkd.types import Batch
from segkd.utils.devices import resolve_device
from segkd.utils.tables import Rows

DATA = "data"

NUM_BATCHES = 8
"""Batches that are loaded in advance and reused."""


def benchmark_training_step(settings: TrainSettings, repeats: int, warmup: int) -> BenchmarkResult:
    """Measure a whole training step, the bare networks, and each part of a step, in turn on the same batches.

    - The *whole step* runs in Lightning like a training, with everything between two batches except loading.
    - The *bare networks*: teacher forward, student forward, cross-entropy at the labels' size, backward, optimizer step.
    - The *parts* run one after another. What the whole step takes beyond them is Lightning, logging, the NaN guard and the
      moving average.
    - *Data* is the loading time per batch; workers hide as much of it as there are free cores.

    Raises:
        UserError: `trainer.micro_batches` is set, or another setting does not fit.
    """
    if settings.trainer.micro_batches > 1:
        raise UserError("mode=step measures whole batches; leave trainer.micro_batches out")
    datamodule = build_datamodule(settings)
    distiller = build_distiller(settings, datamodule)
    device = resolve_device(settings.trainer.accelerator, key="trainer.accelerator")
    clock = Clock(device)
    batches = _load_batches(datamodule, clock)
    _run_training(distiller, settings, clock, [batches[i % len(batches)] for i in range(warmup + repeats + 1)])
    times = {name: seconds if name == DATA else seconds[-repeats:] for name, seconds in clock.seconds.items()}
    crop = get_crop_size(settings, datamodule.train.source)
    environment = describe_environment(crop, repeats, warmup, device) | {
        "batch_size": settings.data.batch_size,
        "precision": settings.trainer.precision,
        "workers": settings.data.workers,
    }
    title = (
        f"a step of {settings.data.batch_size} crops of {crop[0]}×{crop[1]}, {settings.trainer.precision}; "
        f"{format_machine(environment)}"
    )
    ratio = statistics.median(whole / bare for whole, bare in zip(times[WHOLE], times[BARE], strict=True))
    record = {**environment, "ratio": ratio, "times": {name: summarize_times(s) for name, s in times.items()}}
    summary = f"the whole step takes {ratio:.2f} times as long as the bare networks (median of {repeats} pairs)"
    return BenchmarkResult([Table(title, format_rows(times))], record, summary)


def format_rows(times: dict[str, list[float]]) -> Rows:
    """Return the table: whole step, bare networks, parts and rest with their shares of the step, and data loading."""
    whole = compute_median_ms(times[WHOLE])
    parts = [name for name in times if name not in (WHOLE, BARE, DATA)]
    table = [["", "ms", "IQR", "share of the step"]]
    for name in (WHOLE, BARE, *parts):
        share = "" if name == BARE else f"{compute_median_ms(times[name]) / whole:.1%}"
        table.append([name, *format_times(times[name]), share])
    rest = whole - sum(compute_median_ms(times[name]) for name in parts)
    table.append(["all else", f"{rest:.1f}", "", f"{rest / whole:.1%}"])
    if times.get(DATA):
        table.append([f"{DATA}, beside the step", *format_times(times[DATA]), ""])
    return table


def _load_batches(datamodule: SegmentationDataModule, clock: Clock) -> list[Batch]:
    """Load up to `NUM_BATCHES` batches and measure the time of each."""
    batches: list[Batch] = []
    for _ in range(2):  # the first pass starts the workers
        loader = iter(datamodule.train_dataloader())
        next(loader)
        while len(batches) < NUM_BATCHES:
            with clock(DATA):
                batch = next(loader, None)
            if batch is None:
                break
            batches.append(batch)
    return batches or list(islice(datamodule.train_dataloader(), 1))


def _run_training(distiller: Distiller, settings: TrainSettings, clock: Clock, batches: list[Batch]) -> None:
    """Train one epoch on the batches with an `InterleavedTimer`."""
    overrides = {"max_epochs": 1, "limit_train_batches": None, "progress": False, "log_gradient_shares_every": None}
    warnings.filterwarnings("ignore", message="You defined a `validation_step` but")
    timer = InterleavedTimer(distiller, settings, clock)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            settings.trainer.model_copy(update=overrides), Path(folder), [MetricsFileLogger(Path(folder))]
        )
        trainer.callbacks.insert(0, timer)  # type: ignore[attr-defined]
        trainer.fit(distiller, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
