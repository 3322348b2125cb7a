"""Which of several runs and engines are worth their time: mIoU against latency, and the front of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from segkd.errors import UserError
from segkd.export.runtimes import require_package


class Point(NamedTuple):
    """A run under an engine."""

    ms: float
    miou: float
    run: str
    engine: str


def read_points(facts: Mapping[str, Any]) -> list[Point]:
    """What has a score of all that was timed.

    Raises:
        UserError: nothing has.
    """
    found = [Point(f["median_ms"], f["miou"], f["run"], f["engine"]) for f in facts["engines"] if f["miou"] is not None]
    if not found:
        raise UserError("no run has an evaluation.json to plot; make it with python -m segkd.evaluate run=DIR")
    return found


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats or equals at both, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -p.miou)):
        if not best or point.miou > best[-1].miou:
            best.append(point)
    return best


def plot_pareto(points: list[Point], path: Path) -> None:
    """A picture of the points, a mark for each engine and a colour for each run, and of their front.

    Raises:
        UserError: matplotlib is missing, or the picture cannot be written.
    """
    require_package("matplotlib").use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    runs, engines = (list(dict.fromkeys(column)) for column in ([p.run for p in points], [p.engine for p in points]))
    for point in points:
        mark = f"C{runs.index(point.run)}" + "osD^v*"[engines.index(point.engine) % 6]
        axes.plot(point.ms, 100 * point.miou, mark, label=f"{point.run}, {point.engine}")
    best = pareto_front(points)
    axes.plot([p.ms for p in best], [100 * p.miou for p in best], "k--", linewidth=0.8, drawstyle="steps-post")
    axes.set(xlabel="ms for one image", ylabel="mIoU, %")
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # a folder that is missing; an ending that matplotlib does not know
        raise UserError(f"cannot draw {path} ({error}); give a .png, .svg or .pdf that can be written") from None
    finally:
        plt.close(figure)
