"""`python -m segkd.benchmark`: costs of networks, latency of trained ones, and time of a training step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.benchmark.engines import EngineName
from segkd.benchmark.inference import benchmark_inference
from segkd.benchmark.networks import benchmark_networks
from segkd.benchmark.pareto import plot_pareto, read_points
from segkd.benchmark.result import BenchmarkResult
from segkd.benchmark.training_step import benchmark_training_step
from segkd.config.overrides import apply_overrides
from segkd.config.schema import Settings, TrainSettings, load_settings
from segkd.errors import UserError
from segkd.models.student_io import load_student
from segkd.train.check_settings import is_distributed
from segkd.utils.devices import resolve_device
from segkd.utils.files import make_dir
from segkd.utils.tables import print_table

Format = Literal["table", "markdown"]
Repeats = Annotated[int, Field(ge=0)]


class NetworksSettings(Settings):
    """Settings of `mode=networks`."""

    mode: Literal["networks"]
    networks: Annotated[list[str], Field(min_length=1)] | None
    num_classes: PositiveInt
    size: tuple[PositiveInt, PositiveInt]
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    repeats: Repeats
    warmup: Repeats
    format: Format
    output_dir: Path | None


class InferenceSettings(Settings):
    """Settings of `mode=inference`."""

    mode: Literal["inference"]
    run: Path | Annotated[list[Path], Field(min_length=1)] | None
    engines: Annotated[list[EngineName], Field(min_length=1)]
    batch_size: PositiveInt
    plot: Path | None
    size: tuple[PositiveInt, PositiveInt]
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    repeats: PositiveInt
    warmup: Repeats
    format: Format
    output_dir: Path | None


class StepSettings(TrainSettings):
    """Settings of `mode=step`: all settings of a training."""

    mode: Literal["step"]
    repeats: PositiveInt
    warmup: Repeats
    format: Format
    output_dir: Path | None  # type: ignore[assignment]  # no training result is kept


SETTINGS: dict[str, type[Settings]] = {
    "networks": NetworksSettings,
    "inference": InferenceSettings,
    "step": StepSettings,
}


def benchmark(cfg: DictConfig) -> None:
    """Print the tables of a benchmark, and write `benchmark.json` if an `output_dir` is given.

    Raises:
        UserError: a setting does not fit.
    """
    if cfg.mode == "step":
        apply_overrides(cfg)
    settings = load_settings(cfg, SETTINGS[cfg.mode])
    assert isinstance(settings, NetworksSettings | InferenceSettings | StepSettings)
    directory = None if settings.output_dir is None else make_dir(settings.output_dir)
    result = _run(settings)
    if directory is not None:
        text = json.dumps(result.record, indent=1, ensure_ascii=False)
        (directory / "benchmark.json").write_text(text + "\n")
    for table in result.tables:
        print_table(table.rows, settings.format, table.title)
    if isinstance(settings, InferenceSettings) and settings.plot is not None:
        plot_pareto(read_points(result.record), settings.plot)
    if result.summary:
        print(result.summary)


def _run(settings: NetworksSettings | InferenceSettings | StepSettings) -> BenchmarkResult:
    if isinstance(settings, StepSettings):
        if is_distributed(settings.trainer):
            raise UserError("mode=step times one process; use trainer.devices=1")
        return benchmark_training_step(settings, settings.repeats, settings.warmup)
    timing = settings.repeats, settings.warmup, resolve_device(settings.accelerator)
    if isinstance(settings, NetworksSettings):
        return benchmark_networks(settings.networks, settings.size, settings.num_classes, *timing)
    if settings.run is None:
        raise UserError("mode=inference times trained networks; say which: run=DIR or run=[DIR,DIR]")
    runs = settings.run if isinstance(settings.run, list) else [settings.run]
    engines: list[str] = list(dict.fromkeys(settings.engines))
    students = {str(run): load_student(run) for run in runs}
    return benchmark_inference(students, engines, settings.size, settings.batch_size, *timing)
