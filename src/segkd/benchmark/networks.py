"""`mode=networks`: what networks cost in parameters, multiply-accumulates and time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import yaml

from segkd.benchmark.result import BenchmarkResult, Table, environment_info, format_iqr, format_milliseconds
from segkd.config.instantiate import build_spec
from segkd.config.paths import CONFIGS
from segkd.config.suggestions import unknown_name_message
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel, count_parameters
from segkd.models.profiling import count_graph_macs, measure_latencies
from segkd.utils.tables import Rows

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
Paszke et al., 2016, table 3. What they count and what not stands in docs/reference/networks.md."""


class Row(NamedTuple):
    """A network and its costs."""

    name: str
    parameters: int
    macs: int
    seconds: list[float]


def benchmark_networks(
    names: list[str] | None, size: tuple[int, int], num_classes: int, repeats: int, warmup: int, device: torch.device
) -> BenchmarkResult:
    """The costs of networks of configs/model for one image of H W; of all where none is named."""
    with torch.device("cpu" if repeats else "meta"):  # counting needs no weights
        networks = {name: build_network_by_name(name, num_classes) for name in names or list_networks()}
    rows = measure_networks(networks, size, repeats, warmup, device)
    where = environment_info(size, repeats, warmup, device) | {"num_classes": num_classes, "batch": 1}
    machine = f"; {where['device']}, {where['threads']} threads" if repeats else ""
    title = f"one image of {size[0]}×{size[1]}, {num_classes} classes{machine}"
    return BenchmarkResult([Table(title, format_rows(rows))], {**where, "networks": [_facts(row) for row in rows]})


def list_networks() -> list[str]:
    """The networks that configs/model describes whole and that need no other library."""
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in (CONFIGS / "model").glob("*.yaml")}
    others = (None, "segkd.models.adapter.Adapter", "segkd.models.ensemble.Ensemble")
    return sorted(name for name, node in nodes.items() if node["_target_"] not in others)


def build_network_by_name(name: str, num_classes: int) -> SegmentationModel:
    """A network of configs/model, as it starts.

    Raises:
        UserError: there is none of this name.
    """
    if name not in list_networks():
        raise UserError(unknown_name_message("model", name, list_networks()))
    node = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    normalization = Normalization((127.5,) * 3, (127.5,) * 3)
    made: SegmentationModel = build_spec(node, num_classes=num_classes, normalization=normalization)
    return made


def measure_networks(
    networks: Mapping[str, SegmentationModel], size: tuple[int, int], repeats: int, warmup: int, device: torch.device
) -> list[Row]:
    """A row for each network, for one image of H W; without times where `repeats` is 0."""
    costs = {name: (count_parameters(network), count_graph_macs(network, size)) for name, network in networks.items()}
    if not repeats:
        return [Row(name, *costs[name], []) for name in networks]
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)
    tasks = {name: partial(_ask, network.to(device).eval(), image) for name, network in networks.items()}
    taken = measure_latencies(tasks, repeats, warmup, device)
    return [Row(name, *costs[name], taken[name]) for name in networks]


def _ask(network: SegmentationModel, image: torch.Tensor) -> None:
    network(image).logits_at((image.shape[-2], image.shape[-1]))


def format_rows(rows: list[Row]) -> Rows:
    """The table, its titles first."""
    timed = any(row.seconds for row in rows)
    table = [["network", "parameters", "published, M", "G MACs", "published, G", *["ms", "middle half"] * timed]]
    for row in rows:
        parameters, macs = PUBLISHED.get(row.name, ("", ""))
        table.append([row.name, f"{row.parameters:,}", parameters, f"{row.macs / 1e9:.3f}", macs])
        if timed:
            first, third = format_iqr(row.seconds)
            table[-1] += [f"{format_milliseconds(row.seconds):.1f}", f"{first:.1f} – {third:.1f}"]
    return table


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"network": row.name, "parameters": row.parameters, "macs": row.macs}
    if not row.seconds:
        return facts
    return facts | {"median_ms": format_milliseconds(row.seconds), "quartiles_ms": format_iqr(row.seconds)}
