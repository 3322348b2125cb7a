"""The figures of a report, as SVG that takes the colour of its text from the page around it."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]
Order = Sequence[str]
"""All names that any figure of a page may show: each has one colour in all of them."""

# Okabe & Ito: told apart by the colour-blind too, and seen on white and on black.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800", "#7F7F7F")
DASHES = ("-", "--", ":", "-.")
_INK = "#123456"  # becomes the page's own colour
_FOOT = 0.5  # inches for ticks and the name of an axis; the legend lies beneath
_LINE = 90  # letters as wide as a figure
_POINTS = 60  # of a curve; more is noise


def draw_bars(values: Mapping[str, Mapping[str, float]], order: Order, unit: str) -> str:
    """A group of horizontal bars for each row, a bar for each series.

    Args:
        values: series → row → length.
        order: see `Order`.
    """
    rows = list(dict.fromkeys(row for series in values.values() for row in series))
    thickness = 0.8 / max(1, len(values))
    with _figure(7, 0.6 + len(rows) * max(0.3, 0.16 * len(values))) as (figure, axes):
        places = np.arange(len(rows))
        for i, (name, series) in enumerate(values.items()):
            lengths = [series.get(row, 0.0) for row in rows]
            axes.barh(
                places + (i - (len(values) - 1) / 2) * thickness,
                lengths,
                thickness,
                color=_color(name, order),
                label=name,
            )
        axes.set_yticks(places, rows)
        axes.invert_yaxis()
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_xlabel(unit)
        _legend(axes, len(values))
        return _svg(figure)


def draw_curves(groups: Mapping[str, Sequence[Curve]], order: Order, label: str) -> str:
    """The mean of each group's curves over time, and between what they lie."""
    with _figure(7, 3.2) as (figure, axes):
        for name, members in groups.items():
            steps, values = _thinned(members)
            style = {"color": _color(name, order), "linestyle": DASHES[order.index(name) // len(COLORS) % len(DASHES)]}
            axes.plot(steps, values.mean(0), label=name, marker="o" if len(steps) == 1 else None, **style)
            if len(members) > 1:
                axes.fill_between(
                    steps, values.min(0), values.max(0), color=_color(name, order), alpha=0.15, linewidth=0
                )
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        _legend(axes, len(groups))
        return _svg(figure)


def draw_heatmap(matrix: npt.NDArray[np.float64], names: Sequence[str], label: str) -> str:
    """A square matrix whose zero is white: rows are the truth, columns what was said."""
    side = 1.8 + 0.33 * len(names)
    with _figure(side + 0.8, side) as (figure, axes):
        reach = float(np.nanmax(np.abs(matrix))) or 1.0
        image = axes.imshow(matrix, cmap="PuOr_r", vmin=-reach, vmax=reach)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("said")
        axes.set_ylabel("truth")
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label=label)
        bar.outline.set_edgecolor(_INK)
        return _svg(figure)


def draw_scatter(points: Mapping[str, tuple[float, float]], order: Order, across: str, up: str) -> str:
    """Named points; the line joins those that nothing beats in both: less to the left, more upwards."""
    with _figure(7, 3.6) as (figure, axes):
        for name, (x, y) in points.items():
            axes.plot(x, y, "o", color=_color(name, order), label=name)
        best = [
            p for p in points.values() if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points.values())
        ]
        axes.plot(*zip(*sorted(best), strict=True), color=_INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        _legend(axes, len(points))
        return _svg(figure)


def _thinned(members: Sequence[Curve]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Steps, and the values of each member (member, step): means over stretches of equal length, up to the shortest member's end."""
    length = min(len(member) for member in members)
    stretches = np.array_split(np.arange(length), min(length, _POINTS))
    steps = np.array([members[0][stretch[-1]][0] for stretch in stretches], float)
    values = np.array([[value for _, value in member[:length]] for member in members])
    return steps, np.stack([values[:, stretch].mean(1) for stretch in stretches], 1)


def _color(name: str, order: Order) -> str:
    return COLORS[order.index(name) % len(COLORS)]


def _legend(axes: Any, entries: int) -> None:
    if entries > 1:
        _, names = axes.get_legend_handles_labels()
        columns = min(3, max(1, _LINE // (max(map(len, names)) + 6)))
        legend = axes.figure.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns)
        for text in legend.get_texts():
            text.set_text(textwrap.fill(text.get_text(), _LINE))


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Any]]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {
        **dict.fromkeys(inked, _INK),
        "svg.fonttype": "none",  # text stays text: it can be read aloud and copied
        "svg.hashsalt": "segkd",  # the same figure has the same bytes
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure((width, height))
        figure.subplots_adjust(bottom=_FOOT / height)
        yield figure, figure.subplots()


def _svg(figure: Figure) -> str:
    """The `<svg>` element alone, sized by the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", svg, count=2)
