"""`mode=networks`: parameters, multiply-accumulates and latency of the networks in configs/model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import yaml

from segkd.benchmark.result import (
    BenchmarkResult,
    Table,
    describe_environment,
    format_machine,
    format_times,
    summarize_times,
)
from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.config.suggestions import explain_unknown_name
from segkd.config.targets import resolve_target
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel, count_parameters
from segkd.models.profiling import count_macs, measure_latencies
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
"""Parameters in millions and multiply-accumulates in billions ("FLOPs" at 512×1024): Liu et al., 2019, table 3; SegNet:
Paszke et al., 2016, table 3. docs/reference/networks.md says which operations they count."""


class NetworkCosts(NamedTuple):
    """Costs of a network; `seconds` is empty where nothing was timed."""

    name: str
    parameters: int
    macs: int
    seconds: list[float]


def benchmark_networks(
    names: list[str] | None, size: tuple[int, int], num_classes: int, repeats: int, warmup: int, device: torch.device
) -> BenchmarkResult:
    """Measure the costs of networks of configs/model for one image.

    Args:
        names: of networks; all if None.
        size: height and width of the image.
        num_classes: number of classes.
        repeats: timed passes; 0 to time nothing.
        warmup: rounds before the first that counts.
        device: where to compute.

    Raises:
        UserError: there is no such network.
    """
    with torch.device("cpu" if repeats else "meta"):  # counting needs no weights
        networks = {name: build_network_by_name(name, num_classes) for name in names or list_networks()}
    costs = measure_networks(networks, size, repeats, warmup, device)
    environment = describe_environment(size, repeats, warmup, device) | {"num_classes": num_classes, "batch": 1}
    machine = f"; {format_machine(environment)}" if repeats else ""
    title = f"one image of {size[0]}×{size[1]}, {num_classes} classes{machine}"
    record = {**environment, "networks": [_make_entry(entry) for entry in costs]}
    return BenchmarkResult([Table(title, format_rows(costs))], record)


def list_networks() -> list[str]:
    """Return the names in configs/model of networks that need no other library, no wrapped network and no members."""
    names = []
    for path in (CONFIGS / "model").glob("*.yaml"):
        target = yaml.safe_load(path.read_bytes())["_target_"]
        if target is not None:
            network = resolve_target(target)
            if not (network.constructor_loads_weights or network.has_members):
                names.append(path.stem)
    return sorted(names)


def build_network_by_name(name: str, num_classes: int) -> SegmentationModel:
    """Build a network of configs/model with random weights.

    Raises:
        UserError: there is none of this name.
    """
    if name not in list_networks():
        raise UserError(explain_unknown_name("model", name, list_networks()))
    node = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_bytes())
    normalization = Normalization((127.5,) * 3, (127.5,) * 3)
    network: SegmentationModel = parse_spec(node).build(num_classes=num_classes, normalization=normalization)
    return network


def measure_networks(
    networks: Mapping[str, SegmentationModel], size: tuple[int, int], repeats: int, warmup: int, device: torch.device
) -> list[NetworkCosts]:
    """Return the costs of each network for one image of `size`, without times if `repeats` is 0."""
    counts = {name: (count_parameters(network), count_macs(network, (3, *size))) for name, network in networks.items()}
    if not repeats:
        return [NetworkCosts(name, *counts[name], []) for name in networks]
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)
    tasks = {name: partial(_run, network.to(device).eval(), image) for name, network in networks.items()}
    seconds = measure_latencies(tasks, repeats, warmup, device)
    return [NetworkCosts(name, *counts[name], seconds[name]) for name in networks]


def format_rows(costs: list[NetworkCosts]) -> Rows:
    """Return the table of costs, beside the published ones."""
    is_timed = any(entry.seconds for entry in costs)
    table = [["network", "parameters", "published, M", "G MACs", "published, G", *["ms", "IQR"] * is_timed]]
    for entry in costs:
        parameters, macs = PUBLISHED.get(entry.name, ("", ""))
        times = format_times(entry.seconds) if is_timed else []
        table.append([entry.name, f"{entry.parameters:,}", parameters, f"{entry.macs / 1e9:.3f}", macs, *times])
    return table


def _run(network: SegmentationModel, image: torch.Tensor) -> None:
    network(image).logits_at((image.shape[-2], image.shape[-1]))


def _make_entry(costs: NetworkCosts) -> dict[str, Any]:
    entry: dict[str, Any] = {"network": costs.name, "parameters": costs.parameters, "macs": costs.macs}
    return entry | summarize_times(costs.seconds) if costs.seconds else entry
