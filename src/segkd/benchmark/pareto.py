"""The Pareto front of runs and engines: mIoU against latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from segkd.errors import UserError
from segkd.utils.packages import require_package
from segkd.utils.pareto import select_pareto_front


class Point(NamedTuple):
    """A run in an engine."""

    ms: float
    miou: float
    run: str
    engine: str


def read_points(record: Mapping[str, Any]) -> list[Point]:
    """Return a point for each timed engine with a known mIoU.

    Raises:
        UserError: there is none.
    """
    points = [
        Point(entry["median_ms"], entry["miou"], entry["run"], entry["engine"])
        for entry in record["engines"]
        if entry["miou"] is not None
    ]
    if not points:
        raise UserError("no run has an evaluation.json to plot; make it with python -m segkd.evaluate run=DIR")
    return points


def plot_pareto(points: list[Point], path: Path) -> None:
    """Plot the points, a marker for each engine and a color for each run, and their Pareto front.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    require_package("matplotlib", "export").use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    runs, engines = (list(dict.fromkeys(column)) for column in ([p.run for p in points], [p.engine for p in points]))
    for point in points:
        style = f"C{runs.index(point.run)}" + "osD^v*"[engines.index(point.engine) % 6]
        axes.plot(point.ms, 100 * point.miou, style, label=f"{point.run}, {point.engine}")
    front = select_pareto_front(points, lambda p: (p.ms, p.miou))
    axes.plot([p.ms for p in front], [100 * p.miou for p in front], "k--", linewidth=0.8, drawstyle="steps-post")
    axes.set(xlabel="ms per image", ylabel="mIoU, %")
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # a missing folder; a suffix that matplotlib does not know
        raise UserError(f"cannot draw {path} ({error}); give a .png, .svg or .pdf that can be written") from None
    finally:
        plt.close(figure)
