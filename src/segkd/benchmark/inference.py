"""`mode=inference`: how fast each engine answers with a trained network, and what it gives for the time."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.benchmark.result import BenchmarkResult, Table, environment_info, format_iqr, format_milliseconds
from segkd.errors import UserError
from segkd.export.formats import FORMATS, export_and_verify
from segkd.export.graph import Graph
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.profiling import count_graph_macs, measure_latencies, measure_peak_bytes
from segkd.utils.tables import Rows

Answer = Callable[[Tensor], Tensor]
"""RGB images, B 3 H W uint8, to class scores B K H W."""


class Speed(NamedTuple):
    """How long an engine takes for one image and for a batch, each time."""

    run: str
    engine: str
    one: list[float]
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
    """Latency and throughput of networks, by the name of their run, under each engine; engines and networks take turns.

    Raises:
        UserError: an engine cannot run a network here.
    """
    if device.type != "cpu" and (files := [engine for engine in engines if engine in FORMATS]):
        raise UserError(f"engines {', '.join(files)} compute on the CPU; leave them out, or give accelerator=cpu")
    with tempfile.TemporaryDirectory() as folder:
        answers = {
            (run, engine): _engine(engine, network.to(device).eval(), Path(folder))
            for run, network in networks.items()
            for engine in engines
        }
        one, batch = (torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, device=device) for n in (1, batch_size))
        tasks = {
            (*key, kind): partial(answer, images)
            for key, answer in answers.items()
            for kind, images in (("one", one), ("batch", batch))
        }
        taken = measure_latencies(tasks, repeats, warmup, device)
    speeds = [Speed(*key, taken[*key, "one"], taken[*key, "batch"]) for key in answers]
    where = environment_info(size, repeats, warmup, device) | {"batch_size": batch_size}
    title = f"images of {size[0]}×{size[1]}; {where['device']}, {where['threads']} threads"
    costs = [_costs(run, network, size) for run, network in networks.items()]
    tables = [Table("what is run", _cost_cells(costs)), Table(title, format_rows(speeds, batch_size))]
    fastest = min(speeds, key=lambda speed: format_milliseconds(speed.one))
    outcome = f"fastest: {fastest.engine} of {fastest.run}, {format_milliseconds(fastest.one):.1f} ms"
    facts = {**where, "networks": costs, "engines": [_facts(speed, batch_size) for speed in speeds]}
    return BenchmarkResult(tables, facts, outcome)


def _engine(name: str, network: SegmentationModel, folder: Path) -> Answer:
    if name in FORMATS:
        graph = Graph(network)
        # int8 is calibrated on noise here, which moves no time; its score is that of an exported file.
        return export_and_verify(
            name, graph, Path(tempfile.mkdtemp(dir=folder)), [graph.example()], torch.get_num_threads()
        )
    return {"eager": _eager, "compiled": _compiled, "channels_last": _channels_last, "bf16": _bf16}[name](network)


def _eager(network: SegmentationModel) -> Answer:
    return lambda images: network(images).logits_at((images.shape[-2], images.shape[-1]))


def _compiled(network: SegmentationModel) -> Answer:
    answer: Answer = torch.compile(_eager(network), dynamic=False)

    def checked(images: Tensor) -> Tensor:
        try:
            return answer(images)
        except RuntimeError as error:  # no C++ compiler, or a network that it cannot take
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise UserError(f"torch.compile failed ({reason}); leave compiled out of engines") from None

    return checked


def _channels_last(network: SegmentationModel) -> Answer:
    turned = _eager(copy.deepcopy(network).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return lambda images: turned(images.contiguous(memory_format=torch.channels_last))


def _bf16(network: SegmentationModel) -> Answer:
    answer = _eager(network)

    def halved(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return answer(images)

    return halved


def format_rows(speeds: list[Speed], batch_size: int) -> Rows:
    """The table of times; each engine beside eager PyTorch of the same run, where that was measured."""
    eager = {speed.run: format_milliseconds(speed.one) for speed in speeds if speed.engine == "eager"}
    table = [["run", "engine", "ms", "middle half", "times as fast as eager", f"images/s, {batch_size} at once"]]
    for speed in speeds:
        first, third = format_iqr(speed.one)
        ratio = f"{eager[speed.run] / format_milliseconds(speed.one):.2f}" if speed.run in eager else ""
        throughput = 1e3 * batch_size / format_milliseconds(speed.batch)
        table.append(
            [
                speed.run,
                speed.engine,
                f"{format_milliseconds(speed.one):.1f}",
                f"{first:.1f} – {third:.1f}",
                ratio,
                f"{throughput:.1f}",
            ]
        )
    return table


def _costs(run: str, network: SegmentationModel, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "run": run,
        "network": type(network).__name__,
        "parameters": count_parameters(network),
        "macs": count_graph_macs(network, size),
        "peak_bytes": measure_peak_bytes(network, (3, *size)),
    }


def _cost_cells(costs: list[dict[str, Any]]) -> Rows:
    table = [["run", "network", "parameters", "G MACs", "weights, MB", "maps at their most, MB"]]
    for cost in costs:
        numbers = (f"{cost['macs'] / 1e9:.3f}", f"{4e-6 * cost['parameters']:.2f}", f"{1e-6 * cost['peak_bytes']:.1f}")
        table.append([cost["run"], cost["network"], f"{cost['parameters']:,}", *numbers])
    return table


def _facts(speed: Speed, batch_size: int) -> dict[str, Any]:
    return {
        "run": speed.run,
        "engine": speed.engine,
        "median_ms": format_milliseconds(speed.one),
        "quartiles_ms": format_iqr(speed.one),
        "images_per_second": 1e3 * batch_size / format_milliseconds(speed.batch),
        "miou": check_scores(Path(speed.run), speed.engine),
    }


def check_scores(run: Path, engine: str) -> float | None:
    """The mIoU of what an engine answers with, where it is known: of the run, or for int8 of its exported file.

    bf16's is nobody's: evaluate scores in float32.
    """
    files = {"bf16": None, "int8": "student.int8.onnx.json"}
    name = files.get(engine, "evaluation.json")
    if name is None or not (run / name).is_file():
        return None
    facts = json.loads((run / name).read_text())
    miou: float | None = facts.get("scores", facts)["miou"]
    return miou
