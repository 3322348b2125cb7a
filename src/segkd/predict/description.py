"""What a prediction says of itself: the last line of stdout, `prediction.json` and `legend.png`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkd.data.drawing import draw_legend
from segkd.predict.destination import Destination
from segkd.predict.label_values import LabelValues
from segkd.predict.palette import Palette
from segkd.predict.pipeline import Totals
from segkd.predict.rendering import extend_legend
from segkd.predict.settings import PredictSettings
from segkd.predict.writers import write_file
from segkd.utils.files import atomic_write, write_json

log = logging.getLogger(__name__)

_LEGEND_WIDTH = 480  # pixels of legend.png


class Work(NamedTuple):
    """What was done."""

    title: str
    """Of the input."""
    totals: Totals
    skipped: list[str]
    """What could not be read."""
    seconds: float


def write_description(
    settings: PredictSettings, destination: Destination, palette: Palette, values: LabelValues, work: Work
) -> None:
    """Write `prediction.json` into the folder and, unless legend=false, `legend.png`."""
    runs = [str(run) for run in settings.runs]
    description: dict[str, Any] = {
        "run": runs[0] if len(runs) == 1 else runs,
        "checkpoint": [str(file) for file in settings.checkpoints],
        "input": work.title,
        "outputs": destination.outputs,
        "frames": work.totals.frames,
        "skipped": work.skipped,
        "seconds": round(work.seconds, 2),
        "dataset": palette.dataset,
        "classes": {name: list(color) for name, color in palette.classes.items()},
    }
    if settings.window is not None:
        description |= {"window": list(settings.window), "overlap": settings.overlap}
    if settings.ids == "own":
        description["ids"] = dict(zip(palette.classes, values.classes, strict=True))
    if settings.min_confidence is not None:
        description |= {
            "min_confidence": settings.min_confidence,
            "fraction_below": work.totals.unsure,
            "ignore_id": values.ignored,
        }
    with atomic_write(destination.path / "prediction.json", "output") as part:
        write_json(part, description)
    if settings.legend:
        legend = extend_legend(palette.classes, settings.min_confidence, palette.unsure_color)
        with write_file(destination.path / "legend.png") as write:
            write("legend", np.asarray(draw_legend(legend, _LEGEND_WIDTH)))


def warn_if_all_unsure(totals: Totals, min_confidence: float | None) -> None:
    """Warn of networks that are nowhere sure enough, whose labels are of no use for a training."""
    for name, part in totals.unsure.items():
        if min_confidence is not None and part == 1:
            log.warning(
                "no class of %s has a probability of %g anywhere, so all pixels are left out; give a smaller "
                "min_confidence, or train the network longer",
                *(name, min_confidence),
            )


def format_summary(work: Work, min_confidence: float | None, path: Path) -> str:
    """Return the line that ends the command."""
    count, skipped, below = work.totals.frames, "", ""
    if work.skipped:
        more = ", …" * (len(work.skipped) > 3)
        skipped = f", {len(work.skipped)} skipped that cannot be read ({', '.join(work.skipped[:3])}{more})"
    if min_confidence is not None:
        fractions = work.totals.unsure
        named = [f"{100 * part:.1f} %{f' ({name})' * (len(fractions) > 1)}" for name, part in fractions.items()]
        below = f", {' and '.join(named)} of the pixels below {min_confidence:g}"
    return f"{count} frame{'s' * (count != 1)}, {count / work.seconds:.1f} per second{below}{skipped} → {path}"
