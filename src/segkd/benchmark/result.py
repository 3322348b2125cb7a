"""The result of a benchmark, and the statistics of its times."""

from __future__ import annotations

import platform
import statistics
from typing import Any, NamedTuple

import torch

from segkd.utils.tables import Rows


class Table(NamedTuple):
    """A table to print."""

    title: str
    rows: Rows


class BenchmarkResult(NamedTuple):
    """Tables to print, the record for `benchmark.json`, and a summary line."""

    tables: list[Table]
    record: dict[str, Any]
    summary: str | None = None


def compute_median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return 1e3 * statistics.median(seconds)


def compute_quartiles_ms(seconds: list[float]) -> tuple[float, float]:
    """Return the first and the third quartile in milliseconds; their difference is the IQR."""
    if len(seconds) == 1:
        return compute_median_ms(seconds), compute_median_ms(seconds)
    first, _, third = statistics.quantiles(seconds, method="inclusive")
    return 1e3 * first, 1e3 * third


def format_times(seconds: list[float]) -> list[str]:
    """Return two cells of a table: the median and the interquartile range, in milliseconds."""
    first, third = compute_quartiles_ms(seconds)
    return [f"{compute_median_ms(seconds):.1f}", f"{first:.1f} – {third:.1f}"]


def summarize_times(seconds: list[float]) -> dict[str, Any]:
    """Return the median and the quartiles as entries of a record."""
    return {"median_ms": compute_median_ms(seconds), "quartiles_ms": compute_quartiles_ms(seconds)}


def describe_environment(size: tuple[int, int], repeats: int, warmup: int, device: torch.device) -> dict[str, Any]:
    """Return the settings and the hardware that a time depends on."""
    return {
        "size": list(size),
        "repeats": repeats,
        "warmup": warmup,
        "device": _get_device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def format_machine(environment: dict[str, Any]) -> str:
    """Return the device and the number of threads, for a title."""
    return f"{environment['device']}, {environment['threads']} threads"


def _get_device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
