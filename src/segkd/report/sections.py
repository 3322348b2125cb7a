"""Build the sections of a report; a section without content is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.report.comparison import MethodResult, build_class_table, build_summary_table
from segkd.report.figures import draw_bars, draw_curves, draw_heatmap, draw_scatter
from segkd.runs.run import Run
from segkd.utils.tables import Rows

_OTHER_METRICS = {
    "boundary_iou.miou": ("boundary IoU %", 100),
    "calibration.ece": ("ECE %", 100),
    "calibration.nll": ("NLL", 1),
    "calibration.brier": ("Brier score", 1),
    "teacher_agreement.agreement": ("agreement with the teacher %", 100),
    "category_iou.miou": ("category IoU %", 100),
    "instance_iou.miou": ("iIoU %", 100),
    "corruptions.mean": ("mIoU, corrupted images %", 100),
}
"""Path in `evaluation.json` → title of the column, and factor of its values."""


class Figure(NamedTuple):
    """A figure with its caption."""

    svg: str
    caption: str


class Section(NamedTuple):
    """A section of a report."""

    title: str
    table: Rows = ()
    figures: Sequence[Figure] = ()
    note: str = ""


def build_sections(methods: Sequence[MethodResult]) -> list[Section]:
    """Return every section that these methods have content for."""
    builders: tuple[Callable[[Sequence[MethodResult]], Section | None], ...] = (
        _build_scores, _build_classes, _build_confusions, _build_other_metrics, _build_curves, _build_gradient_shares, _build_costs,
    )  # fmt: skip
    return [section for build in builders if (section := build(methods)) is not None]


def compute_confusion(runs: Sequence[Run]) -> npt.NDArray[np.float64]:
    """Return the K × K share of each true class that is predicted as each class, over all runs together."""
    counts = np.sum([(run.evaluation or {})["confusion_matrix"] for run in runs], axis=0, dtype=float)
    num_classes = len((runs[0].evaluation or {})["classes"])
    shares: npt.NDArray[np.float64] = counts[:num_classes, :num_classes] / np.maximum(
        1, counts[:num_classes].sum(1, keepdims=True)
    )
    return shares


def _build_scores(methods: Sequence[MethodResult]) -> Section:
    return Section("Scores", build_summary_table(methods))


def _build_classes(methods: Sequence[MethodResult]) -> Section:
    gains = {
        method.name: {name: 100 * gain for name, gain in method.class_gains.items()}
        for method in methods
        if method.class_gains
    }
    figures = []
    if gains:
        svg = draw_bars(gains, _list_names(methods), "IoU, difference in points")
        figures.append(Figure(svg, "Gain of each class over the baseline at equal steps."))
    return Section("Classes", build_class_table(methods), figures)


def _build_confusions(methods: Sequence[MethodResult]) -> Section | None:
    baseline = next((method for method in methods if method.is_baseline), None)
    distilled = [method for method in methods if not method.is_baseline]
    is_scored = all(run.evaluation is not None for method in methods for run in method.runs)
    if baseline is None or not distilled or not is_scored:
        return None
    before = compute_confusion(baseline.runs)
    classes = list((baseline.runs[0].evaluation or {})["classes"])
    figures = [
        Figure(
            draw_heatmap(100 * (compute_confusion(method.runs) - before), classes, "points"),
            f"{method.name}: share of each true class that is predicted as each class, difference from the baseline.",
        )
        for method in distilled
    ]
    return Section("Confusions", figures=figures)


def _build_other_metrics(methods: Sequence[MethodResult]) -> Section | None:
    values = {path: [_read_values(method, path) for method in methods] for path in _OTHER_METRICS}
    measured = [path for path in values if any(values[path])]
    if not measured:
        return None
    table = [["method", *(_OTHER_METRICS[path][0] for path in measured)]]
    for i, method in enumerate(methods):
        table.append([method.name, *(_format_mean(values[path][i], _OTHER_METRICS[path][1]) for path in measured)])
    note = "Means over seeds of the metrics that segkd.evaluate was run with."
    return Section("Boundaries, calibration, agreement", table, note=note)


def _read_values(method: MethodResult, path: str) -> list[float]:
    values = (_look_up(run.evaluation, path) for run in method.runs)
    return [value for value in values if value is not None]


def _look_up(node: object, path: str) -> float | None:
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, int | float) else None


def _format_mean(values: Sequence[float], factor: int) -> str:
    return f"{factor * fmean(values):.{2 if factor == 100 else 4}f}" if values else ""


def _build_curves(methods: Sequence[MethodResult]) -> Section | None:
    curves = [curve for method in methods for run in method.runs for curve in run.read_curves().items()]
    terms = dict.fromkeys(name for name, _ in curves if name.startswith("train/"))
    figures = [Figure(_draw_curve(methods, name), name.removeprefix("train/")) for name in terms]
    if any(name == "val/miou" and len(points) > 1 for name, points in curves):
        figures.append(Figure(_draw_curve(methods, "val/miou"), "mIoU on the validation split."))
    note = "Loss terms are raw, without their weights; 'total' is the weighted sum. Means over seeds, with their range."
    return Section("Curves", figures=figures, note=note) if figures else None


def _draw_curve(methods: Sequence[MethodResult], name: str) -> str:
    groups = {
        method.name: [curves[name] for run in method.runs if name in (curves := run.read_curves())]
        for method in methods
    }
    groups = {method: curves for method, curves in groups.items() if curves}
    return draw_curves(groups, _list_names(methods), name.partition("/")[2])


def _build_gradient_shares(methods: Sequence[MethodResult]) -> Section | None:
    figures = []
    for method in methods:
        curves = [run.read_curves() for run in method.runs]
        names = dict.fromkeys(name for run_curves in curves for name in run_curves if name.startswith("share/"))
        if names:
            groups = {name.removeprefix("share/"): [run_curves[name] for run_curves in curves] for name in names}
            caption = f"{method.name}: each term's share of the student's gradient."
            figures.append(Figure(draw_curves(groups, list(groups), "share"), caption))
    return Section("Gradient shares", figures=figures) if figures else None


def _build_costs(methods: Sequence[MethodResult]) -> Section | None:
    points = {
        method.name: (method.seconds + method.teacher_seconds, 100 * method.miou)
        for method in methods
        if method.teacher_seconds is not None
    }
    if len(points) < 2:
        return None
    note = "" if len(points) == len(methods) else "Methods whose teacher's training time is unknown are left out."
    svg = draw_scatter(points, _list_names(methods), "seconds of training, with the teacher's", "mIoU %")
    return Section(
        "Cost",
        figures=[Figure(svg, "Methods on the line are beaten by none in both score and cost (Pareto front).")],
        note=note,
    )


def _list_names(methods: Sequence[MethodResult]) -> list[str]:
    return [method.name for method in methods]
