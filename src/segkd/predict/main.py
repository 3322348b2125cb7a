"""`python -m segkd.predict`: what a run's student sees in images, films or a camera."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from omegaconf import DictConfig
from pydantic import Field, PositiveInt, StrictBool

from segkd.config.schema import Settings, load_settings
from segkd.data.unlabelled import SUFFIXES
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import load_student
from segkd.predict.drawing import draw_legend
from segkd.predict.pipeline import run_pipeline
from segkd.predict.rendering import IDS, OutputKind, Palette, make_renderer
from segkd.predict.sources import open_source
from segkd.predict.writers import Write, write_file, write_folder, write_gif, write_video
from segkd.runs.load import load_run_teacher
from segkd.utils.devices import resolve_device
from segkd.utils.files import atomic_write

_RATE = 10.0  # frames a second of a film that is made of none
_LEGEND_WIDTH = 480  # pixels of legend.png


class PredictSettings(Settings):
    """`python -m segkd.predict`."""

    run: Path | None
    input: str | None
    output: Path | None
    views: Annotated[list[OutputKind], Field(min_length=1)] | None
    opacity: float = Field(ge=0, le=1)
    legend: StrictBool
    fps: Annotated[float, Field(ge=1, le=240)] | None
    width: Annotated[int, Field(ge=16)] | None
    limit: PositiveInt | None
    batch_size: PositiveInt
    overwrite: StrictBool
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]


def predict(cfg: DictConfig) -> None:
    """Label every frame, write the views asked for, and print, as the last line of stdout, how many there were."""
    settings = load_settings(cfg, PredictSettings)
    if settings.run is None or settings.input is None or settings.output is None:
        raise UserError("say what to predict: run=DIR input=IMAGE|DIR|FILM|camera output=DIR|FILE")
    kind = _kind(settings.output)
    views = _views(settings, settings.output, kind)
    palette = Palette.of_run(settings.run)
    # A folder has the legend once, and its pictures the size of their images.
    beneath = palette.classes if settings.legend and kind else {}
    pictures = [make_renderer(view, palette, settings.opacity, beneath) for view in views]
    _check_output(settings.output, Path(settings.input), settings.overwrite)
    device = resolve_device(settings.accelerator)
    asked = {name: network.to(device).eval() for name, network in _networks(settings.run, views).items()}
    frames = open_source(settings.input)
    length = min((given for given in (frames.length, settings.limit) if given is not None), default=None)
    began = time.monotonic()
    with ExitStack() as stack, frames.interruptible():
        goals = [stack.enter_context(_writer(view, kind, settings, frames.rate, length)) for view in views]
        shown = [*zip(pictures, goals, strict=True)]
        limited = islice(frames, settings.limit)
        number = run_pipeline(limited, asked, len(palette.classes), shown, settings.batch_size, settings.input, length)
        if not number:
            raise UserError(f"nothing in {settings.input} can be read; fetch or copy it again")
    seconds = time.monotonic() - began
    if not kind:
        _describe(settings, views, palette, number, frames.skipped, seconds)
    print(
        f"{number} frame{'s' * (number != 1)}, {number / seconds:.1f} a second{_left_out(frames.skipped)} → {settings.output}"
    )


def _kind(output: Path) -> str:
    """The suffix of a file, or nothing for a folder.

    Raises:
        UserError: a file of a kind that is not written.
    """
    suffix = output.suffix.lower()
    if output.is_dir() or not suffix:
        return ""
    if suffix not in (known := (".mp4", ".gif", *SUFFIXES)):
        raise UserError(
            f"output={output} is of no kind that is written; give a folder, or a file in {', '.join(known)}"
        )
    return suffix


def _views(settings: PredictSettings, output: Path, kind: str) -> list[OutputKind]:
    """What is asked for, or what suits the output.

    Raises:
        UserError: several views in one file, or ids where they would not stay what they are.
    """
    default: list[OutputKind] = ["overlay"] if kind else ["labels", "colors", "overlay"]
    views = [*dict.fromkeys(settings.views or default)]
    if kind and len(views) > 1:
        raise UserError(f"{output} takes one of the views {', '.join(views)}; give one, or a folder as output")
    if kind not in ("", ".png") and views[0] in IDS:
        raise UserError(f"{output} cannot hold {views[0]}, which are numbers; give a folder or a .png as output")
    return views


def _check_output(output: Path, source: Path, overwrite: bool) -> None:
    """An output replaces nothing unless asked to, and does not feed on itself.

    Raises:
        UserError: it exists already, is the input, or lies inside it.
    """
    if source.exists() and output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"output={output} lies in input={source} and would be predicted next time; put it elsewhere")
    exists = any(output.iterdir()) if output.is_dir() else output.exists()
    if exists and not overwrite:
        raise UserError(f"{output} exists already; give another output, or overwrite=true, which replaces namesakes")


def _networks(run: Path, views: list[OutputKind]) -> dict[str, SegmentationModel]:
    """The student, and where it is shown beside it, the teacher that the run had, if it had one."""
    student = {"student": load_student(run)}
    beside = load_run_teacher(run) if "side_by_side" in views else None
    return student if beside is None else {**student, "teacher": beside}


def _writer(
    view: OutputKind, kind: str, settings: PredictSettings, rate: float | None, length: int | None
) -> AbstractContextManager[Write]:
    """Where a view goes.

    Raises:
        UserError: many frames into one picture.
    """
    output = settings.output
    assert output is not None
    match kind:
        case "":
            return write_folder(output / view)
        case ".mp4" | ".gif":
            film = write_video if kind == ".mp4" else write_gif
            return film(output, settings.fps or rate or _RATE, settings.width)
    if length != 1:
        raise UserError(
            f"{output} is one picture, and {settings.input} may be many; give a folder, .mp4 or .gif as output, or limit=1"
        )
    return write_file(output)


def _describe(
    settings: PredictSettings,
    views: list[OutputKind],
    palette: Palette,
    number: int,
    skipped: list[str],
    seconds: float,
) -> None:
    """Write `prediction.json` into the folder, and `draw_legend.png` if wanted."""
    assert settings.output is not None
    facts: dict[str, Any] = {
        "run": str(settings.run),
        "input": settings.input,
        "views": views,
        "frames": number,
        "skipped": skipped,
        "seconds": round(seconds, 2),
        "dataset": palette.dataset,
        "classes": {name: list(color) for name, color in palette.classes.items()},
    }
    with atomic_write(settings.output / "prediction.json", "output") as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    if settings.legend:
        with write_file(settings.output / "legend.png") as write:
            write("legend", np.asarray(draw_legend(palette.classes, _LEGEND_WIDTH)))


def _left_out(skipped: list[str]) -> str:
    if not skipped:
        return ""
    return f", {len(skipped)} skipped that cannot be read ({', '.join(skipped[:3])}{', …' * (len(skipped) > 3)})"
