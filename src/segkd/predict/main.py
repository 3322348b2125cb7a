"""`python -m segkd.predict`: predict images, videos, a camera stream or a split of a dataset."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import islice

from omegaconf import DictConfig

from segkd.builders.datasets import open_dataset
from segkd.config.instantiate import Spec
from segkd.config.schema import load_settings
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.inference import check_window
from segkd.predict.description import Work, format_summary, warn_if_all_unsure, write_description
from segkd.predict.destination import Destination, check_destination, open_outputs, resolve_destination
from segkd.predict.label_values import (
    LabelValues,
    find_ids_of_dataset,
    find_ids_of_files,
    make_index_values,
    make_own_values,
)
from segkd.predict.labeling import Labeling
from segkd.predict.networks import load_checkpoints, load_students, load_with_teacher, read_description
from segkd.predict.palette import Palette, share_classes
from segkd.predict.pipeline import run_pipeline
from segkd.predict.rendering import STUDENT
from segkd.predict.settings import PredictSettings
from segkd.predict.sources import FrameSource, open_sequence, open_source
from segkd.runs.load import resolve_dataset
from segkd.utils.devices import resolve_device


def predict(cfg: DictConfig) -> None:
    """Predict every frame, write the outputs, and print the number of frames as the last line of stdout."""
    settings = load_settings(cfg, PredictSettings)
    destination = resolve_destination(settings)
    dataset = _open_dataset(settings)
    palette = _find_palette(settings, dataset)
    check_destination(destination, settings)
    values = _find_values(settings, destination, dataset, palette)
    make_outputs = open_outputs(destination, settings, palette, values)
    device = resolve_device(settings.accelerator)
    networks = {
        name: network.to(device).eval() for name, network in _load_networks(settings, destination, dataset).items()
    }
    for network in networks.values():
        check_window(settings.window, network)
    labeling = Labeling(len(palette.classes), settings.window, settings.overlap, settings.min_confidence)
    frames, title = _open_frames(settings, dataset)
    length = min((number for number in (frames.length, settings.limit) if number is not None), default=None)
    start = time.monotonic()
    with ExitStack() as stack, frames.handle_interrupt():
        outputs = [stack.enter_context(output) for output in make_outputs(frames.rate, length, title)]
        # A rate that is given takes the place of the input's times.
        timed = frames if settings.fps is None else (frame._replace(time=None) for frame in frames)
        limited = islice(timed, settings.limit)
        totals = run_pipeline(limited, networks, labeling, outputs, settings.batch_size, title, length)
        if not totals.frames:
            raise UserError(f"no frame of {title} can be read; copy it again")
    warn_if_all_unsure(totals, settings.min_confidence)
    work = Work(title, totals, frames.skipped, time.monotonic() - start)
    if not destination.suffix:
        write_description(settings, destination, palette, values, work)
    print(format_summary(work, settings.min_confidence, destination.path))


def _open_dataset(settings: PredictSettings) -> SegmentationDataset | None:
    """Return the dataset that is predicted, or that names classes or ids; None if the files of the weights do.

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
    is_given = isinstance(settings.dataset, Spec) or settings.dataset.path is not None
    if settings.split is None and not is_given:
        return None
    if settings.split is None and not settings.model and settings.ids != "own":
        raise UserError("a dataset is predicted by split=NAME in place of input; leave dataset out otherwise")
    return open_dataset(resolve_dataset(settings.dataset, *settings.runs), settings.split or "val")


def _find_palette(settings: PredictSettings, dataset: SegmentationDataset | None) -> Palette:
    """Return the classes: those of the dataset, or else those that the files of all weights name."""
    if dataset is not None:
        return Palette.from_dataset(dataset)
    if settings.runs:
        return Palette.from_runs(settings.runs, settings.check_classes)
    palettes = {file: Palette.from_metadata(read_description(file), file) for file in settings.checkpoints}
    return share_classes(palettes, "checkpoints", settings.check_classes)


def _find_values(
    settings: PredictSettings, destination: Destination, dataset: SegmentationDataset | None, palette: Palette
) -> LabelValues:
    """Return what label files hold.

    Raises:
        UserError: the dataset's own ids are wanted, and there are none, or no output holds them.
    """
    if settings.ids == "index":
        return make_index_values(len(palette.classes))
    if not {*destination.outputs} & {"class_ids", "dataset"}:
        raise UserError(f"ids=own is of class_ids and dataset, not of {', '.join(destination.outputs)}; leave ids out")
    if dataset is not None:
        return make_own_values(find_ids_of_dataset(dataset), palette.dataset)
    run = settings.runs[0] if settings.runs else None
    file = settings.checkpoints[0] if run is None else run / "student.safetensors"
    description = file if file.suffix == ".ckpt" else file.with_suffix(".yaml")
    ids = find_ids_of_files(read_description(file), description, palette, run, settings.check_classes)
    return make_own_values(ids, palette.dataset)


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
        return load_checkpoints(settings.model, settings.checkpoints, dataset, settings.check_classes)
    students = load_students(settings.runs, dataset, settings.check_classes)
    if "side_by_side" in destination.outputs and len(settings.runs) == 1:
        return load_with_teacher(settings.runs[0], students[STUDENT], settings.check_classes)
    return students
