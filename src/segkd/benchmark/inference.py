"""`mode=inference`: latency and throughput of trained networks in each engine, and their mIoU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from segkd.benchmark.engines import build_engine
from segkd.benchmark.result import (
    BenchmarkResult,
    Table,
    compute_median_ms,
    describe_environment,
    format_machine,
    format_times,
    summarize_times,
)
from segkd.errors import UserError
from segkd.export.formats import FORMATS
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.profiling import count_macs, measure_latencies, measure_peak_bytes
from segkd.utils.tables import Rows


class EngineTimes(NamedTuple):
    """Seconds that an engine takes for one image and for a batch, for each repeat."""

    run: str
    engine: str
    single: list[float]
    batch: list[float]


def benchmark_inference(
    networks: Mapping[str, SegmentationModel],
    engines: list[str],
    size: tuple[int, int],
    batch_size: int,
    repeats: int,
    warmup: int,
    device: torch.device,
) -> BenchmarkResult:
    """Measure latency and throughput of networks in each engine; engines and networks alternate.

    Args:
        networks: by the name of their run.
        engines: names of engines.
        size: height and width of the images.
        batch_size: images at once, for the throughput.
        repeats: measurements of each.
        warmup: rounds before the first that counts.
        device: where to compute.

    Raises:
        UserError: an engine cannot run a network on this device.
    """
    if device.type != "cpu" and (files := [engine for engine in engines if engine in FORMATS]):
        raise UserError(f"engines {', '.join(files)} compute on the CPU; leave them out, or give accelerator=cpu")
    times = _measure(networks, engines, size, batch_size, repeats, warmup, device)
    environment = describe_environment(size, repeats, warmup, device) | {"batch_size": batch_size}
    title = f"images of {size[0]}×{size[1]}; {format_machine(environment)}"
    costs = [_compute_costs(run, network, size) for run, network in networks.items()]
    tables = [Table("networks", _format_costs(costs)), Table(title, format_rows(times, batch_size))]
    fastest = min(times, key=lambda entry: compute_median_ms(entry.single))
    summary = f"fastest: {fastest.engine} of {fastest.run}, {compute_median_ms(fastest.single):.1f} ms"
    record = {**environment, "networks": costs, "engines": [_make_entry(entry, batch_size) for entry in times]}
    return BenchmarkResult(tables, record, summary)


def format_rows(times: list[EngineTimes], batch_size: int) -> Rows:
    """Return the table of times, with the speedup over eager PyTorch of the same run where that was measured."""
    eager = {entry.run: compute_median_ms(entry.single) for entry in times if entry.engine == "eager"}
    table = [["run", "engine", "ms", "IQR", "speed-up over eager", f"images/s, {batch_size} at once"]]
    for entry in times:
        speedup = f"{eager[entry.run] / compute_median_ms(entry.single):.2f}" if entry.run in eager else ""
        throughput = f"{1e3 * batch_size / compute_median_ms(entry.batch):.1f}"
        table.append([entry.run, entry.engine, *format_times(entry.single), speedup, throughput])
    return table


def read_miou(run: Path, engine: str) -> float | None:
    """Return the mIoU of an engine's output, where it is known: the run's, or for int8 its exported file's.

    It is unknown for bf16: `evaluate` computes in float32.
    """
    files = {"bf16": None, "int8": "student.int8.onnx.json"}
    name = files.get(engine, "evaluation.json")
    if name is None or not (run / name).is_file():
        return None
    record = json.loads((run / name).read_bytes())
    miou: float | None = record.get("scores", record)["miou"]
    return miou


def _measure(
    networks: Mapping[str, SegmentationModel],
    engines: list[str],
    size: tuple[int, int],
    batch_size: int,
    repeats: int,
    warmup: int,
    device: torch.device,
) -> list[EngineTimes]:
    with tempfile.TemporaryDirectory() as folder:
        runners = {
            (run, engine): build_engine(engine, network.to(device).eval(), Path(folder))
            for run, network in networks.items()
            for engine in engines
        }
        single, batch = (
            torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, device=device) for n in (1, batch_size)
        )
        tasks = {
            (*key, kind): partial(runner, images)
            for key, runner in runners.items()
            for kind, images in (("single", single), ("batch", batch))
        }
        seconds = measure_latencies(tasks, repeats, warmup, device)
    return [EngineTimes(*key, seconds[*key, "single"], seconds[*key, "batch"]) for key in runners]


def _compute_costs(run: str, network: SegmentationModel, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "run": run,
        "network": type(network).__name__,
        "parameters": count_parameters(network),
        "macs": count_macs(network, (3, *size)),
        "peak_bytes": measure_peak_bytes(network, (3, *size)),
    }


def _format_costs(costs: list[dict[str, Any]]) -> Rows:
    table = [["run", "network", "parameters", "G MACs", "weights, MB", "peak activations, MB"]]
    for cost in costs:
        numbers = (f"{cost['macs'] / 1e9:.3f}", f"{4e-6 * cost['parameters']:.2f}", f"{1e-6 * cost['peak_bytes']:.1f}")
        table.append([cost["run"], cost["network"], f"{cost['parameters']:,}", *numbers])
    return table


def _make_entry(entry: EngineTimes, batch_size: int) -> dict[str, Any]:
    return {
        "run": entry.run,
        "engine": entry.engine,
        **summarize_times(entry.single),
        "images_per_second": 1e3 * batch_size / compute_median_ms(entry.batch),
        "miou": read_miou(Path(entry.run), entry.engine),
    }
