"""`python -m segkd.clip`: a sequence of a data set as two networks see it, before and after distillation, as a film and a GIF."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.build.datasets import open_dataset
from segkd.cli.launch import launch
from segkd.config.instantiate import SpecDict
from segkd.config.schema import DatasetNode, Settings, SpecNode, load_settings
from segkd.data.base import SegmentationDataset
from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.predict.drawing import colorize, image_grid
from segkd.predict.pipeline import FramePrediction, run_pipeline
from segkd.predict.sources import DatasetFrames
from segkd.predict.writers import write_gif, write_video
from segkd.runs.load import dataset_spec, load_network
from segkd.utils.devices import resolve_device


class ClipSettings(Settings):
    """`python -m segkd.clip`."""

    before: Path | None
    after: Path | None
    model: SpecNode | None = None
    dataset: DatasetNode
    split: str
    sequence: str
    frames: PositiveInt
    fps: Annotated[float, Field(gt=0, le=240)]
    width: Annotated[int, Field(ge=16)]
    output: Path
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]


def clip(cfg: DictConfig) -> None:
    """Write OUTPUT.mp4 and OUTPUT.gif: image · before · after."""
    settings = load_settings(cfg, ClipSettings)
    if settings.before is None or settings.after is None:
        raise UserError("say which networks to compare: before=RUN after=RUN, or model=NAME before=FILE after=FILE")
    places = (settings.before, settings.after)
    if not _is_network(settings.model) and (strange := next((place for place in places if not place.is_dir()), None)):
        raise UserError(f"{strange} is no folder of a run; if it holds weights, say of which network: model=NAME")
    runs = [place for place in places if place.is_dir()]
    dataset = open_dataset(dataset_spec(settings.dataset, *runs), settings.split)
    compared = {
        "before": _network(settings, settings.before, dataset),
        "after": _network(settings, settings.after, dataset),
    }
    frames = _sequence(settings, dataset)
    device = resolve_device(settings.accelerator)
    classes = dict(zip(dataset.classes, dataset.colors, strict=True))

    def picture(one: FramePrediction) -> Array:
        said = {f"{name} distillation": [colorize(labels, dataset.colors)] for name, labels in one.labels.items()}
        return np.asarray(image_grid({"image": [one.frame.image], **said}, classes, scale=1))

    film, small = (settings.output.with_name(f"{settings.output.name}.{kind}") for kind in ("mp4", "gif"))
    with ExitStack() as stack:
        writes = [
            stack.enter_context(write_video(film, settings.fps)),
            stack.enter_context(write_gif(small, settings.fps, settings.width)),
        ]
        shown = {name: network.to(device).eval() for name, network in compared.items()}
        number = run_pipeline(
            frames, shown, len(classes), [(picture, write) for write in writes], 4, "clip", frames.length
        )
    megabytes = (path.stat().st_size / 1e6 for path in (film, small))
    sizes = " · ".join(f"{path} ({size:.2f} MB)" for path, size in zip((film, small), megabytes, strict=True))
    print(f"{number} frame{'s' * (number != 1)} of {dataset.display_name()} → {sizes}")


def _is_network(node: SpecDict | None) -> bool:
    return node is not None and node["_target_"] is not None


def _network(settings: ClipSettings, source: Path, dataset: SegmentationDataset) -> SegmentationModel:
    """The student of a run, or a network and its weights.

    Raises:
        UserError: a file without a model, or other classes than the data set's.
    """
    if source.is_dir():
        return load_network(source, None, None, dataset)[0]
    return load_network(None, settings.model, source, dataset)[0]


def _sequence(settings: ClipSettings, dataset: SegmentationDataset) -> DatasetFrames:
    """The first images whose names begin as the sequence's do.

    Raises:
        UserError: there is none.
    """
    named = [i for i in range(len(dataset)) if dataset.name(i).startswith(settings.sequence)]
    if not named:
        raise UserError(
            f"no image of {dataset.display_name()} {settings.split} is called {settings.sequence}…; the first is {dataset.name(0)}"
        )
    return DatasetFrames(dataset, named[: settings.frames])


if __name__ == "__main__":
    launch("clip")
