"""`python -m segkd.benchmark`: costs of networks, latency of trained ones, and time of a training step."""

from __future__ import annotations

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
from segkd.config.schema import Accelerator, Settings, load_settings
from segkd.config.training import TrainSettings
from segkd.errors import UserError
from segkd.models.student_io import load_student
from segkd.train.check_settings import uses_several_processes
from segkd.utils.devices import resolve_device
from segkd.utils.files import make_dir, write_json
from segkd.utils.tables import print_table

Format = Literal["table", "markdown"]
Repeats = Annotated[int, Field(ge=0)]


class NetworksSettings(Settings):
    """Settings of `mode=networks`."""

    mode: Literal["networks"] = Field(description="parameters, multiply-accumulates and time of untrained networks")
    networks: Annotated[list[str], Field(min_length=1)] | None = Field(
        description="names of configs/model; null: all", json_schema_extra={"values": "[NAME,…]|null"}
    )
    num_classes: PositiveInt = Field(description="classes of the networks")
    size: tuple[PositiveInt, PositiveInt] = Field(description="height and width of the image")
    accelerator: Accelerator = Field(description="device to compute on")
    repeats: Repeats = Field(description="timed repetitions; 0: no times")
    warmup: Repeats = Field(description="repetitions before the timed ones")
    format: Format = Field(description="format of the printed table")
    output_dir: Path | None = Field(
        description="folder for benchmark.json; null: it is not written", json_schema_extra={"values": "DIR|null"}
    )


class InferenceSettings(Settings):
    """Settings of `mode=inference`."""

    mode: Literal["inference"] = Field(description="latency and throughput of trained networks")
    run: Path | Annotated[list[Path], Field(min_length=1)] | None = Field(
        description="folders of finished runs", json_schema_extra={"values": "DIR|[DIR,…]", "required": True}
    )
    engines: Annotated[list[EngineName], Field(min_length=1)] = Field(description="runtimes to measure")
    batch_size: PositiveInt = Field(description="images at once, for the throughput")
    plot: Path | None = Field(
        description="picture of mIoU (from evaluation.json) against latency, with the Pareto front",
        json_schema_extra={"values": "FILE|null"},
    )
    size: tuple[PositiveInt, PositiveInt] = Field(description="height and width of the image")
    accelerator: Accelerator = Field(description="device to compute on")
    repeats: PositiveInt = Field(description="timed repetitions")
    warmup: Repeats = Field(description="repetitions before the timed ones")
    format: Format = Field(description="format of the printed table")
    output_dir: Path | None = Field(
        description="folder for benchmark.json; null: it is not written", json_schema_extra={"values": "DIR|null"}
    )


class StepSettings(TrainSettings):
    """Settings of `mode=step`: all settings of a training."""

    mode: Literal["step"] = Field(description="a training step and its parts, beside the bare networks")
    repeats: PositiveInt = Field(description="timed steps")
    warmup: Repeats = Field(description="steps before the timed ones")
    format: Format = Field(description="format of the printed table")
    output_dir: Path | None = Field(
        description="folder for benchmark.json; null: it is not written", json_schema_extra={"values": "DIR|null"}
    )  # type: ignore[assignment]  # no training result is kept


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
        write_json(directory / "benchmark.json", result.record)
    for table in result.tables:
        print_table(table.rows, settings.format, table.title)
    if isinstance(settings, InferenceSettings) and settings.plot is not None:
        plot_pareto(read_points(result.record), settings.plot)
    if result.summary:
        print(result.summary)


def _run(settings: NetworksSettings | InferenceSettings | StepSettings) -> BenchmarkResult:
    if isinstance(settings, StepSettings):
        if uses_several_processes(settings.trainer):
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
