"""`python -m segkd.benchmark`: what networks cost, and how fast they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd import devices
from segkd.benchmarks import inference, networks, pareto
from segkd.benchmarks.findings import Findings
from segkd.cli import launch
from segkd.config import Settings, validate
from segkd.errors import UserError
from segkd.models.weights import load_student
from segkd.tables import show

Engine = Literal["eager", "compiled", "channels_last", "bf16", "torchscript", "onnx", "openvino", "int8"]


class BenchmarkSettings(Settings):
    """`python -m segkd.benchmark`."""

    mode: Literal["networks", "inference"]
    networks: Annotated[list[str], Field(min_length=1)] | None
    num_classes: PositiveInt
    run: Path | Annotated[list[Path], Field(min_length=1)] | None
    engines: Annotated[list[Engine], Field(min_length=1)]
    batch_size: PositiveInt
    plot: Path | None
    size: tuple[PositiveInt, PositiveInt]
    repeats: int = Field(ge=0)
    warmup: int = Field(ge=0)
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    format: Literal["table", "markdown"]
    output_dir: Path | None


def benchmark(cfg: DictConfig) -> None:
    """Print tables of what was found, and write `benchmark.json` where an `output_dir` is given."""
    settings = validate(cfg, BenchmarkSettings)
    directory = _made(settings.output_dir)
    findings = {"networks": _networks, "inference": _inference}[settings.mode](settings)
    if directory is not None:
        text = json.dumps(findings.facts, indent=1, ensure_ascii=False)
        (directory / "benchmark.json").write_text(text + "\n")
    for table in findings.tables:
        show(table.cells, settings.format, table.title)
    if settings.mode == "inference" and settings.plot is not None:
        pareto.draw(pareto.points(findings.facts), settings.plot)
    if findings.outcome:
        print(findings.outcome)


def _networks(settings: BenchmarkSettings) -> Findings:
    device = devices.device(settings.accelerator)
    return networks.find(
        settings.networks, settings.size, settings.num_classes, settings.repeats, settings.warmup, device
    )


def _inference(settings: BenchmarkSettings) -> Findings:
    if settings.run is None:
        raise UserError("mode=inference times trained networks; say which: run=DIR or run=[DIR,DIR]")
    runs = settings.run if isinstance(settings.run, list) else [settings.run]
    students = {str(run): load_student(run) for run in runs}
    device = devices.device(settings.accelerator)
    engines: list[str] = list(dict.fromkeys(settings.engines))
    return inference.find(
        students, engines, settings.size, settings.batch_size, settings.repeats, settings.warmup, device
    )


def _made(directory: Path | None) -> Path | None:
    """The folder, made before the work, which a path that cannot be made should not cost."""
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {directory} ({error.strerror}); give another output_dir") from None
    return directory


if __name__ == "__main__":
    launch(benchmark, "benchmark")
