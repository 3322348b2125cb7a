"""The output of an evaluation: `evaluation.json`, and a table."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkd.evaluate.metrics_report import MetricResult, compute_nanmean, format_percent
from segkd.metrics import Scores
from segkd.runs.compatibility import rename_metrics
from segkd.utils.files import atomic_write, write_json
from segkd.utils.tables import TableFormat, print_table

log = logging.getLogger(__name__)


def write_evaluation(file: Path, evaluation: dict[str, Any]) -> None:
    """Write the file; warn on stderr if it replaces scores of something else, because runs are compared by it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # it may hold anything
        former = rename_metrics(json.loads(file.read_bytes()))
        keys = ("dataset", "split", "images", "protocol", *(["data"] if "data" in former else []))
        if any(former[key] != evaluation[key] for key in keys):
            log.warning("%s held scores of %s %s; output_dir=DIR keeps both", file, former["dataset"], former["split"])
    with atomic_write(file) as part:
        write_json(part, evaluation)


def print_scores(
    scores: Scores, results: Mapping[str, MetricResult], classes: Sequence[str], table_format: TableFormat, title: str
) -> None:
    """Print a table with a row per class, and a line per metric."""
    columns = dict(result.per_class for result in results.values() if result.per_class is not None)
    rows = [
        [name, _format_cell(iou, "absent"), *(_format_cell(values[i], "–") for values in columns.values())]
        for i, (name, iou) in enumerate(zip(classes, scores.iou, strict=True))
    ]
    means = (_format_cell(compute_nanmean(values), "–") for values in columns.values())
    rows.append(["mean", _format_cell(scores.miou, "absent"), *means])
    lines = [
        f"class accuracy {format_percent(scores.class_accuracy)} · pixel accuracy {format_percent(scores.pixel_accuracy)}",
        *(result.summary for result in results.values()),
    ]
    print_table([["class", "IoU %", *columns], *rows], table_format, title)
    # A blank line ends a markdown table; LaTeX must not set the lines.
    prefix = {"table": "", "markdown": "\n", "latex": "% "}[table_format]
    for line in lines:
        print(f"{prefix}{line}")


def _format_cell(fraction: float, placeholder: str) -> str:
    return placeholder if math.isnan(fraction) else format_percent(fraction)
