"""`python -m segkd.benchmark`: what networks cost, how fast they answer, and where a training step's time goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.benchmark.inference import benchmark_inference
from segkd.benchmark.networks import benchmark_networks
from segkd.benchmark.pareto import plot_pareto, read_points
from segkd.benchmark.result import BenchmarkResult
from segkd.benchmark.training_step import benchmark_training_step
from segkd.config.overrides import apply_overrides
from segkd.config.schema import Settings, TrainSettings, load_settings
from segkd.errors import UserError
from segkd.models.checkpoint_io import load_student
from segkd.train.trainer import is_distributed
from segkd.utils.devices import resolve_device
from segkd.utils.tables import print_table

Engine = Literal["eager", "compiled", "channels_last", "bf16", "torchscript", "onnx", "openvino", "int8"]
Format = Literal["table", "markdown"]
Repeats = Annotated[int, Field(ge=0)]


class NetworksSettings(Settings):
    """`mode=networks`."""

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
    """`mode=inference`."""

    mode: Literal["inference"]
    run: Path | Annotated[list[Path], Field(min_length=1)] | None
    engines: Annotated[list[Engine], Field(min_length=1)]
    batch_size: PositiveInt
    plot: Path | None
    size: tuple[PositiveInt, PositiveInt]
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    repeats: PositiveInt
    warmup: Repeats
    format: Format
    output_dir: Path | None


class StepSettings(TrainSettings):
    """`mode=step`: all that a training has."""

    mode: Literal["step"]
    repeats: PositiveInt
    warmup: Repeats
    format: Format
    output_dir: Path | None  # type: ignore[assignment]  # nothing is trained that had to be kept


SETTINGS: dict[str, type[Settings]] = {
    "networks": NetworksSettings,
    "inference": InferenceSettings,
    "step": StepSettings,
}


def benchmark(cfg: DictConfig) -> None:
    """Print tables of what was found, and write `benchmark.json` where an `output_dir` is given."""
    if cfg.mode == "step":
        apply_overrides(cfg)
    settings = load_settings(cfg, SETTINGS[cfg.mode])
    assert isinstance(settings, NetworksSettings | InferenceSettings | StepSettings)
    directory = _made(settings.output_dir)
    findings = _found(settings)
    if directory is not None:
        text = json.dumps(findings.facts, indent=1, ensure_ascii=False)
        (directory / "benchmark.json").write_text(text + "\n")
    for table in findings.tables:
        print_table(table.cells, settings.format, table.title)
    if isinstance(settings, InferenceSettings) and settings.plot is not None:
        plot_pareto(read_points(findings.facts), settings.plot)
    if findings.outcome:
        print(findings.outcome)


def _found(settings: NetworksSettings | InferenceSettings | StepSettings) -> BenchmarkResult:
    if isinstance(settings, StepSettings):
        if is_distributed(settings.trainer):
            raise UserError("mode=step times one process; use trainer.devices=1")
        return benchmark_training_step(settings, settings.repeats, settings.warmup)
    turns = settings.repeats, settings.warmup, resolve_device(settings.accelerator)
    if isinstance(settings, NetworksSettings):
        return benchmark_networks(settings.networks, settings.size, settings.num_classes, *turns)
    if settings.run is None:
        raise UserError("mode=inference times trained networks; say which: run=DIR or run=[DIR,DIR]")
    runs = settings.run if isinstance(settings.run, list) else [settings.run]
    engines: list[str] = list(dict.fromkeys(settings.engines))
    students = {str(run): load_student(run) for run in runs}
    return benchmark_inference(students, engines, settings.size, settings.batch_size, *turns)


def _made(directory: Path | None) -> Path | None:
    """The folder, made before the work, which a path that cannot be made should not cost."""
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {directory} ({error.strerror}); give another output_dir") from None
    return directory
