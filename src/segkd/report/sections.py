"""What a report says of runs, section by section; a section that has nothing to show is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from segkd.report.comparison import MethodResult, class_table, summary_table
from segkd.report.figures import draw_bars, draw_curves, draw_heatmap, draw_scatter
from segkd.runs.run import Run
from segkd.utils.tables import Rows

_OTHER_SCORES = {
    "boundary.miou": ("boundary IoU %", 100),
    "calibration.ece": ("ECE %", 100),
    "calibration.nll": ("NLL", 1),
    "calibration.brier": ("Brier", 1),
    "agreement.agreement": ("same class as the teacher %", 100),
    "categories.miou": ("category IoU %", 100),
    "instances.miou": ("iIoU %", 100),
    "corruptions.mean": ("mIoU damaged %", 100),
}
"""Where `evaluation.json` has a score, what to call it, and what to multiply it by."""


class Figure(NamedTuple):
    """A picture with the sentence beneath it."""

    svg: str
    caption: str


class Section(NamedTuple):
    """A part of a report."""

    title: str
    table: Rows = ()
    figures: Sequence[Figure] = ()
    note: str = ""


def build_sections(rows: Sequence[MethodResult]) -> list[Section]:
    """All that can be said of these methods."""
    makers: tuple[Callable[[Sequence[MethodResult]], Section | None], ...] = (
        _scores, _classes, _confusions, _other_scores, _curves, _shares, _costs,
    )  # fmt: skip
    return [section for make in makers if (section := make(rows)) is not None]


def _scores(rows: Sequence[MethodResult]) -> Section:
    return Section("Scores", summary_table(rows))


def _classes(rows: Sequence[MethodResult]) -> Section:
    gains = {row.name: {name: 100 * gain for name, gain in row.class_gains.items()} for row in rows if row.class_gains}
    shown = [
        Figure(
            draw_bars(gains, _order(rows), "IoU, difference in points"),
            "Gain of each class over the student alone at equal steps.",
        )
    ]
    return Section("Classes", class_table(rows), shown if gains else ())


def _confusions(rows: Sequence[MethodResult]) -> Section | None:
    alone = next((row for row in rows if not row.runs[0].terms), None)
    others = [row for row in rows if row.runs[0].terms]
    if alone is None or not others or any(run.evaluation is None for row in rows for run in row.runs):
        return None
    before = _confusion(alone.runs)
    names = list((alone.runs[0].evaluation or {})["classes"])
    shown = [
        Figure(
            draw_heatmap(100 * (_confusion(row.runs) - before), names, "points"),
            f"{row.name}: how much more (or less) of each true class is taken for each class than by the student alone.",
        )
        for row in others
    ]
    return Section("Confusions", figures=shown)


def _confusion(runs: Sequence[Run]) -> Any:
    """Shares of what each true class is taken for, over all runs together; K × K."""
    counts = np.sum([(run.evaluation or {})["confusion_matrix"] for run in runs], axis=0, dtype=float)
    classes = len((runs[0].evaluation or {})["classes"])
    return counts[:classes, :classes] / np.maximum(1, counts[:classes].sum(1, keepdims=True))


def _other_scores(rows: Sequence[MethodResult]) -> Section | None:
    found = {
        path: [[value for run in row.runs if (value := _at(run.evaluation, path)) is not None] for row in rows]
        for path in _OTHER_SCORES
    }
    there = [path for path, values in found.items() if any(values)]
    if not there:
        return None
    table = [["method", *(_OTHER_SCORES[path][0] for path in there)]]
    for i, row in enumerate(rows):
        values = ((found[path][i], _OTHER_SCORES[path][1]) for path in there)
        table.append(
            [row.name, *(f"{factor * fmean(v):.{2 if factor == 100 else 4}f}" if v else "" for v, factor in values)]
        )
    return Section(
        "Contours, calibration, agreement", table, note="Means over seeds, of what segkd.evaluate was asked for."
    )


def _curves(rows: Sequence[MethodResult]) -> Section | None:
    terms = dict.fromkeys(
        name for row in rows for run in row.runs for name in run.curves() if name.startswith("train/")
    )
    shown = [Figure(_curve(rows, name), name.removeprefix("train/")) for name in terms]
    if any(len(run.curves().get("val/miou", ())) > 1 for row in rows for run in row.runs):
        shown.append(Figure(_curve(rows, "val/miou"), "mIoU on the validation split."))
    note = "Terms are raw, without their weights; total is minimised. Means over seeds, and what lies between the least and the greatest."
    return Section("Curves", figures=shown, note=note) if shown else None


def _curve(rows: Sequence[MethodResult], name: str) -> str:
    found = {row.name: [run.curves()[name] for run in row.runs if name in run.curves()] for row in rows}
    there = {method: members for method, members in found.items() if members}
    return draw_curves(there, _order(rows), name.partition("/")[2])


def _shares(rows: Sequence[MethodResult]) -> Section | None:
    shown = []
    for row in rows:
        names = dict.fromkeys(name for run in row.runs for name in run.curves() if name.startswith("share/"))
        if names:
            found = {name.removeprefix("share/"): [run.curves()[name] for run in row.runs] for name in names}
            shown.append(
                Figure(
                    draw_curves(found, list(found), "share"),
                    f"{row.name}: each term's share of the student's gradient.",
                )
            )
    return Section("Who pulls how much", figures=shown) if shown else None


def _costs(rows: Sequence[MethodResult]) -> Section | None:
    points = {
        row.name: (row.seconds + row.teacher_seconds, 100 * fmean(run.miou for run in row.runs))
        for row in rows
        if row.teacher_seconds is not None
    }
    if len(points) < 2:
        return None
    note = "" if len(points) == len(rows) else "Methods whose teacher's cost is not known are left out."
    picture = draw_scatter(points, _order(rows), "seconds of training, the teacher's too", "mIoU %")
    return Section("What it costs", figures=[Figure(picture, "Nothing beats the joined ones in both.")], note=note)


def _order(rows: Sequence[MethodResult]) -> list[str]:
    return [row.name for row in rows]


def _at(facts: Any, path: str) -> float | None:
    for key in path.split("."):
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts if isinstance(facts, int | float) else None
