"""`mode=networks`: what networks cost in parameters, multiply-accumulates and time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import yaml

from segkd.benchmarks.findings import Findings, Table, circumstances, middle_half, milliseconds
from segkd.cli import CONFIGS, unknown
from segkd.complexity import latencies, multiply_accumulates
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel, parameters_of
from segkd.nodes import construct
from segkd.tables import Cells

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


def find(
    names: list[str] | None, size: tuple[int, int], num_classes: int, repeats: int, warmup: int, device: torch.device
) -> Findings:
    """The costs of networks of configs/model for one image of H W; of all where none is named."""
    with torch.device("cpu" if repeats else "meta"):  # counting needs no weights
        networks = {name: network_of(name, num_classes) for name in names or known()}
    rows = measure(networks, size, repeats, warmup, device)
    where = circumstances(size, repeats, warmup, device) | {"num_classes": num_classes, "batch": 1}
    machine = f"; {where['device']}, {where['threads']} threads" if repeats else ""
    title = f"one image of {size[0]}×{size[1]}, {num_classes} classes{machine}"
    return Findings([Table(title, cells(rows))], {**where, "networks": [_facts(row) for row in rows]})


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
    if not repeats:
        return [Row(name, *costs[name], []) for name in networks]
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)
    tasks = {name: partial(_ask, network.to(device).eval(), image) for name, network in networks.items()}
    taken = latencies(tasks, repeats, warmup, device)
    return [Row(name, *costs[name], taken[name]) for name in networks]


def _ask(network: SegmentationModel, image: torch.Tensor) -> None:
    network(image).at((image.shape[-2], image.shape[-1]))


def cells(rows: list[Row]) -> Cells:
    """The table, its titles first."""
    timed = any(row.seconds for row in rows)
    table = [["network", "parameters", "published, M", "G MACs", "published, G", *["ms", "middle half"] * timed]]
    for row in rows:
        parameters, macs = PUBLISHED.get(row.name, ("", ""))
        table.append([row.name, f"{row.parameters:,}", parameters, f"{row.macs / 1e9:.3f}", macs])
        if timed:
            first, third = middle_half(row.seconds)
            table[-1] += [f"{milliseconds(row.seconds):.1f}", f"{first:.1f} – {third:.1f}"]
    return table


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"network": row.name, "parameters": row.parameters, "macs": row.macs}
    if not row.seconds:
        return facts
    return facts | {"median_ms": milliseconds(row.seconds), "quartiles_ms": middle_half(row.seconds)}
