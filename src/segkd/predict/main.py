"""`python -m segkd.predict`: predict images, videos, a camera stream or a split of a dataset."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import islice
from typing import Any

import numpy as np
from omegaconf import DictConfig

from segkd.builders.datasets import open_dataset
from segkd.config.instantiate import Spec
from segkd.config.schema import load_settings
from segkd.data.base import SegmentationDataset
from segkd.data.drawing import draw_legend
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.predict.destination import Destination, check_destination, open_writer, resolve_destination
from segkd.predict.networks import load_checkpoints, load_students, load_with_teacher
from segkd.predict.pipeline import run_pipeline
from segkd.predict.rendering import STUDENT, Palette, make_renderer
from segkd.predict.settings import PredictSettings
from segkd.predict.sources import FrameSource, open_sequence, open_source
from segkd.predict.writers import write_file
from segkd.runs.load import resolve_dataset
from segkd.utils.devices import resolve_device
from segkd.utils.files import atomic_write, write_json

_LEGEND_WIDTH = 480  # pixels of legend.png


def predict(cfg: DictConfig) -> None:
    """Predict every frame, write the outputs, and print the number of frames as the last line of stdout."""
    settings = load_settings(cfg, PredictSettings)
    destination = resolve_destination(settings)
    dataset = _open_dataset(settings)
    check = settings.check_classes
    palette = Palette.from_runs(settings.runs, check) if dataset is None else Palette.from_dataset(dataset)
    # A folder has one legend.png, and its images keep their size.
    legend = palette.classes if settings.legend and destination.suffix else {}
    renderers = [make_renderer(output, palette, settings.opacity, legend) for output in destination.outputs]
    check_destination(destination.path, settings)
    device = resolve_device(settings.accelerator)
    networks = {
        name: network.to(device).eval() for name, network in _load_networks(settings, destination, dataset).items()
    }
    frames, title = _open_frames(settings, dataset)
    length = min((number for number in (frames.length, settings.limit) if number is not None), default=None)
    start = time.monotonic()
    with ExitStack() as stack, frames.handle_interrupt():
        writers = [
            stack.enter_context(open_writer(output, destination, settings, frames.rate, length, title))
            for output in destination.outputs
        ]
        outputs = [*zip(renderers, writers, strict=True)]
        # A rate that is given takes the place of the input's times.
        timed = frames if settings.fps is None else (frame._replace(time=None) for frame in frames)
        limited = islice(timed, settings.limit)
        count = run_pipeline(limited, networks, len(palette.classes), outputs, settings.batch_size, title, length)
        if not count:
            raise UserError(f"no frame of {title} can be read; copy it again")
    seconds = time.monotonic() - start
    if not destination.suffix:
        _write_description(settings, destination, palette, title, count, frames.skipped, seconds)
    skipped = _format_skipped(frames.skipped)
    print(f"{count} frame{'s' * (count != 1)}, {count / seconds:.1f} per second{skipped} → {destination.path}")


def _open_dataset(settings: PredictSettings) -> SegmentationDataset | None:
    """Return the dataset that is predicted, or that names the classes of `model`; None if the runs suffice.

    Raises:
        UserError: keys are given that do not go together, or the dataset cannot be opened.
    """
    is_run = bool(settings.runs)
    if is_run == bool(settings.model) or is_run == bool(settings.checkpoints):
        raise UserError("say which network to use: either run=DIR, or model=NAME and checkpoint=FILE")
    if settings.input is not None and settings.split is not None:
        raise UserError(f"input={settings.input} and split={settings.split} are two inputs; leave one out")
    if settings.split is None and settings.sequence:
        raise UserError(f"sequence={settings.sequence} is a part of a split; give split=NAME in place of input")
    if settings.split is None and not settings.model:
        if isinstance(settings.dataset, Spec) or settings.dataset.path is not None:
            raise UserError("a dataset is predicted by split=NAME in place of input; leave dataset out otherwise")
        return None
    return open_dataset(resolve_dataset(settings.dataset, *settings.runs), settings.split or "val")


def _open_frames(settings: PredictSettings, dataset: SegmentationDataset | None) -> tuple[FrameSource, str]:
    """Return the frames, and a name for them."""
    if settings.input is not None:
        return open_source(settings.input), settings.input
    assert dataset is not None
    return open_sequence(dataset, settings.sequence), f"{dataset.display_name} {settings.split}"


def _load_networks(
    settings: PredictSettings, destination: Destination, dataset: SegmentationDataset | None
) -> dict[str, SegmentationModel]:
    """Return the networks; beside a run's only student, in `side_by_side`, also its teacher."""
    if settings.model is not None:
        assert dataset is not None
        return load_checkpoints(settings.model, settings.checkpoints, dataset, settings.check_classes)
    students = load_students(settings.runs, dataset, settings.check_classes)
    if "side_by_side" in destination.outputs and len(settings.runs) == 1:
        return load_with_teacher(settings.runs[0], students[STUDENT], settings.check_classes)
    return students


def _write_description(
    settings: PredictSettings,
    destination: Destination,
    palette: Palette,
    title: str,
    count: int,
    skipped: list[str],
    seconds: float,
) -> None:
    """Write `prediction.json` into the folder and, unless legend=false, `legend.png`."""
    runs = [str(run) for run in settings.runs]
    description: dict[str, Any] = {
        "run": runs[0] if len(runs) == 1 else runs,
        "checkpoint": [str(file) for file in settings.checkpoints],
        "input": title,
        "outputs": destination.outputs,
        "frames": count,
        "skipped": skipped,
        "seconds": round(seconds, 2),
        "dataset": palette.dataset,
        "classes": {name: list(color) for name, color in palette.classes.items()},
    }
    with atomic_write(destination.path / "prediction.json", "output") as part:
        write_json(part, description)
    if settings.legend:
        with write_file(destination.path / "legend.png") as write:
            write("legend", np.asarray(draw_legend(palette.classes, _LEGEND_WIDTH)))


def _format_skipped(skipped: list[str]) -> str:
    if not skipped:
        return ""
    return f", {len(skipped)} skipped that cannot be read ({', '.join(skipped[:3])}{', …' * (len(skipped) > 3)})"
