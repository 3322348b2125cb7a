"""`python -m segkd.benchmark`: what networks cost in parameters, multiply-accumulates and time."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from segkd import build
from segkd.cli import CONFIGS, launch, unknown
from segkd.complexity import latencies, multiply_accumulates
from segkd.config import BenchmarkSettings, validate
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel, parameters_of
from segkd.nodes import construct

PUBLISHED = {
    "enet": ("0.3580", "3.612"),
    "erfnet": ("2.067", "25.60"),
    "espnet": ("0.3635", "4.422"),
    "espnet_c": ("0.3492", "3.468"),
    "mobilenetv2plus": ("8.301", "86.14"),
    "pspnet_resnet101": ("70.43", "574.9"),
    "pspnet_resnet18": ("15.24", "128.2"),
    "pspnet_resnet18_half": ("3.835", "33.35"),
    "segnet": ("29.46", ""),
}
"""Millions of parameters and thousand millions of multiply-accumulates ("FLOPs" of 512×1024): Liu et al., 2019, table 3; SegNet:
Paszke et al., 2016, table 3. What they count and what not stands in docs/networks.md."""


class Row(NamedTuple):
    """A network and its costs."""

    name: str
    parameters: int
    macs: int
    seconds: list[float]


def benchmark(cfg: DictConfig) -> None:
    """Print a table of the networks, and write `benchmark.json` where an `output_dir` is given."""
    settings = validate(cfg, BenchmarkSettings)
    device = build.device(settings.accelerator)
    directory = _made(settings.output_dir)
    with torch.device("cpu" if settings.repeats else "meta"):  # counting needs no weights
        networks = {name: network_of(name, settings.num_classes) for name in settings.networks or known()}
    rows = measure(networks, settings.size, settings.repeats, settings.warmup, device)
    where = _circumstances(settings, device)
    if directory is not None:
        facts = {**where, "networks": [_facts(row) for row in rows]}
        (directory / "benchmark.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    if settings.format == "markdown":
        print(markdown(rows))
    else:
        height, width = settings.size
        machine = f"; {where['device']}, {where['threads']} threads" if settings.repeats else ""
        _show(rows, f"one image of {height}×{width}, {settings.num_classes} classes{machine}")


def known() -> list[str]:
    """The networks that configs/model describes whole and that need no other library."""
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in (CONFIGS / "model").glob("*.yaml")}
    others = (None, "segkd.models.adapter.Adapter", "segkd.models.ensemble.Ensemble")
    return sorted(name for name, node in nodes.items() if node["_target_"] not in others)


def network_of(name: str, num_classes: int) -> SegmentationModel:
    """A network of configs/model, as it starts.

    Raises:
        UserError: there is none of this name.
    """
    if name not in known():
        raise UserError(unknown("model", name, known()))
    node = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    normalization = Normalization((127.5,) * 3, (127.5,) * 3)
    made: SegmentationModel = construct(node, num_classes=num_classes, normalization=normalization)
    return made


def measure(
    networks: Mapping[str, SegmentationModel], size: tuple[int, int], repeats: int, warmup: int, device: torch.device
) -> list[Row]:
    """A row for each network, for one image of H W; without times where `repeats` is 0."""
    costs = {name: (parameters_of(network), multiply_accumulates(network, size)) for name, network in networks.items()}
    taken = latencies(networks, size, repeats, warmup, device) if repeats else {name: [] for name in networks}
    return [Row(name, *costs[name], taken[name]) for name in networks]


def cells(rows: list[Row]) -> list[list[str]]:
    """The table, its titles first."""
    timed = any(row.seconds for row in rows)
    table = [["network", "parameters", "published, M", "G MACs", "published, G", *["ms", "middle half"] * timed]]
    for row in rows:
        parameters, macs = PUBLISHED.get(row.name, ("", ""))
        table.append([row.name, f"{row.parameters:,}", parameters, f"{row.macs / 1e9:.3f}", macs])
        if timed:
            first, third = _quartiles(row)
            table[-1] += [f"{_median(row):.1f}", f"{first:.1f} – {third:.1f}"]
    return table


def markdown(rows: list[Row]) -> str:
    """The table as docs/networks.md shows it."""
    titles, *lines = cells(rows)
    ruler = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, ruler, *lines))


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"network": row.name, "parameters": row.parameters, "macs": row.macs}
    return facts | ({"median_ms": _median(row), "quartiles_ms": _quartiles(row)} if row.seconds else {})


def _median(row: Row) -> float:
    return 1e3 * statistics.median(row.seconds)


def _quartiles(row: Row) -> tuple[float, float]:
    """Between these lies the middle half of the times."""
    if len(row.seconds) == 1:
        return _median(row), _median(row)
    first, _, third = statistics.quantiles(row.seconds, method="inclusive")
    return 1e3 * first, 1e3 * third


def _circumstances(settings: BenchmarkSettings, device: torch.device) -> dict[str, Any]:
    return {
        "size": list(settings.size),
        "num_classes": settings.num_classes,
        "batch": 1,
        "repeats": settings.repeats,
        "warmup": settings.warmup,
        "device": _called(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


def _made(directory: Path | None) -> Path | None:
    """The folder, made before the work, which a path that cannot be made should not cost."""
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {directory} ({error.strerror}); give another output_dir") from None
    return directory


def _show(rows: list[Row], title: str) -> None:
    titles, *lines = cells(rows)
    table = Table(title=title)
    for i, name in enumerate(titles):
        table.add_column(name, justify="right" if i else "left")
    for line in lines:
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    launch(benchmark, "benchmark")
