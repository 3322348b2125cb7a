"""Draw the figures of a report as SVG that takes its text color from the page around it."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segkd.utils.pareto import select_pareto_front

Curve = Sequence[tuple[int, float]]
Order = Sequence[str]
"""All names that the figures of a page show, so that each has one color in all of them."""

# Okabe & Ito: distinguishable with color blindness, and visible on white and on black.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800", "#7F7F7F")
DASHES = ("-", "--", ":", "-.")
_INK = "#123456"  # replaced by the page's text color
_BOTTOM = 0.5  # inches for ticks and the axis label; the legend is below
_MAX_LEGEND_CHARS = 90  # as wide as a figure
_MAX_POINTS = 60  # of a curve; more is noise


def draw_bars(values: Mapping[str, Mapping[str, float]], order: Order, unit: str) -> str:
    """Draw a group of horizontal bars for each row, with one bar for each series.

    Args:
        values: series → row → length.
        order: names of all series of the page.
        unit: label of the axis.

    Returns:
        An `<svg>` element.
    """
    rows = list(dict.fromkeys(row for series in values.values() for row in series))
    thickness = 0.8 / max(1, len(values))
    with _open_figure(7, 0.6 + len(rows) * max(0.3, 0.16 * len(values))) as (figure, axes):
        positions = np.arange(len(rows))
        for i, (name, series) in enumerate(values.items()):
            lengths = [series.get(row, 0.0) for row in rows]
            axes.barh(
                positions + (i - (len(values) - 1) / 2) * thickness,
                lengths,
                thickness,
                color=_pick_color(name, order),
                label=name,
            )
        axes.set_yticks(positions, rows)
        axes.invert_yaxis()
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_xlabel(unit)
        _add_legend(axes, len(values))
        return _render_svg(figure)


def draw_curves(groups: Mapping[str, Sequence[Curve]], order: Order, label: str) -> str:
    """Draw the mean of each group's curves over the steps, and the range that they cover.

    Args:
        groups: name → curves, such as method → one curve for each seed.
        order: names of all groups of the page.
        label: of the vertical axis.

    Returns:
        An `<svg>` element.
    """
    with _open_figure(7, 3.2) as (figure, axes):
        for name, curves in groups.items():
            steps, values = thin_curves(curves)
            style: dict[str, Any] = {
                "color": _pick_color(name, order),
                "linestyle": DASHES[order.index(name) // len(COLORS) % len(DASHES)],
            }
            axes.plot(steps, values.mean(0), label=name, marker="o" if len(steps) == 1 else None, **style)
            if len(curves) > 1:
                axes.fill_between(
                    steps, values.min(0), values.max(0), color=_pick_color(name, order), alpha=0.15, linewidth=0
                )
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        _add_legend(axes, len(groups))
        return _render_svg(figure)


def draw_heatmap(matrix: npt.NDArray[np.float64], names: Sequence[str], label: str) -> str:
    """Draw a square matrix in which zero is white.

    Args:
        matrix: K × K; rows are true classes, columns are predicted classes.
        names: of the K classes.
        label: of the color bar.

    Returns:
        An `<svg>` element.
    """
    side = 1.8 + 0.33 * len(names)
    with _open_figure(side + 0.8, side) as (figure, axes):
        limit = float(np.nanmax(np.abs(matrix))) or 1.0
        image = axes.imshow(matrix, cmap="PuOr_r", vmin=-limit, vmax=limit)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("prediction")
        axes.set_ylabel("ground truth")
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label=label)
        bar.outline.set_edgecolor(_INK)
        return _render_svg(figure)


def draw_scatter(points: Mapping[str, tuple[float, float]], order: Order, x_label: str, y_label: str) -> str:
    """Draw named points, and a line through the Pareto front: the lowest x for the highest y.

    Args:
        points: name → (x, y).
        order: names of all points of the page.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.

    Returns:
        An `<svg>` element.
    """
    with _open_figure(7, 3.6) as (figure, axes):
        for name, (x, y) in points.items():
            axes.plot(x, y, "o", color=_pick_color(name, order), label=name)
        front = select_pareto_front(points.values(), lambda point: point)
        axes.plot(*zip(*front, strict=True), color=_INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _add_legend(axes, len(points))
        return _render_svg(figure)


def thin_curves(curves: Sequence[Curve]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Average curves over at most 60 windows of equal length, up to the end of the shortest curve.

    Returns:
        The last step of each window, and the mean values (curve, window).
    """
    length = min(len(curve) for curve in curves)
    windows = np.array_split(np.arange(length), min(length, _MAX_POINTS))
    steps = np.array([curves[0][window[-1]][0] for window in windows], float)
    values = np.array([[value for _, value in curve[:length]] for curve in curves])
    return steps, np.stack([values[:, window].mean(1) for window in windows], 1)


def _pick_color(name: str, order: Order) -> str:
    return COLORS[order.index(name) % len(COLORS)]


def _add_legend(axes: Axes, entries: int) -> None:
    if entries > 1:
        _, names = axes.get_legend_handles_labels()
        columns = min(3, max(1, _MAX_LEGEND_CHARS // (max(map(len, names)) + 6)))
        legend = axes.figure.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns)
        for text in legend.get_texts():
            text.set_text(textwrap.fill(text.get_text(), _MAX_LEGEND_CHARS))


@contextmanager
def _open_figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    colored = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {
        **dict.fromkeys(colored, _INK),
        "text.parse_math": False,  # a name with $ is no formula
        "svg.fonttype": "none",  # text stays text, for screen readers and copying
        "svg.hashsalt": "segkd",  # the same figure has the same bytes
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the page's font draws the text, whatever the measuring one lacks
        figure = Figure((width, height))
        figure.subplots_adjust(bottom=_BOTTOM / height)
        yield figure, figure.subplots()


def _render_svg(figure: Figure) -> str:
    """Return the `<svg>` element without a size of its own; the page sets it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", svg, count=2)
