"""What a benchmark returns, and how times are told."""

from __future__ import annotations

import platform
import statistics
from typing import Any, NamedTuple

import torch

from segkd.utils.tables import Rows


class Table(NamedTuple):
    """What people read."""

    title: str
    cells: Rows


class BenchmarkResult(NamedTuple):
    """What was found out: tables for people, facts for machines, and the outcome in a line."""

    tables: list[Table]
    facts: dict[str, Any]
    outcome: str | None = None


def format_milliseconds(seconds: list[float]) -> float:
    """Their median."""
    return 1e3 * statistics.median(seconds)


def format_iqr(seconds: list[float]) -> tuple[float, float]:
    """The milliseconds between which the middle half of the times lies."""
    if len(seconds) == 1:
        return format_milliseconds(seconds), format_milliseconds(seconds)
    first, _, third = statistics.quantiles(seconds, method="inclusive")
    return 1e3 * first, 1e3 * third


def environment_info(size: tuple[int, int], repeats: int, warmup: int, device: torch.device) -> dict[str, Any]:
    """What a time depends on."""
    return {
        "size": list(size),
        "repeats": repeats,
        "warmup": warmup,
        "device": _called(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
