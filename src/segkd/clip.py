"""`python -m segkd.clip`: a sequence of a data set as two networks see it, before and after distillation, as a film and a GIF."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd import build, candidates, devices
from segkd.cli import launch
from segkd.config import Data, Settings, Target, validate
from segkd.data.base import SegmentationDataset
from segkd.data.reading import Array
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.nodes import Node
from segkd.prediction import writers
from segkd.prediction.frames import FramesOf
from segkd.prediction.gallery import colored, gallery
from segkd.prediction.stream import Labelled, show


class ClipSettings(Settings):
    """`python -m segkd.clip`."""

    before: Path | None
    after: Path | None
    model: Target | None = None
    dataset: Data
    split: str
    sequence: str
    frames: PositiveInt
    fps: Annotated[float, Field(gt=0, le=240)]
    width: Annotated[int, Field(ge=16)]
    output: Path
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]


def clip(cfg: DictConfig) -> None:
    """Write OUTPUT.mp4 and OUTPUT.gif: image · before · after."""
    settings = validate(cfg, ClipSettings)
    if settings.before is None or settings.after is None:
        raise UserError("say which networks to compare: before=RUN after=RUN, or model=NAME before=FILE after=FILE")
    places = (settings.before, settings.after)
    if not _is_network(settings.model) and (strange := next((place for place in places if not place.is_dir()), None)):
        raise UserError(f"{strange} is no folder of a run; if it holds weights, say of which network: model=NAME")
    runs = [place for place in places if place.is_dir()]
    dataset = build.dataset(candidates.data(settings.dataset, *runs), settings.split)
    compared = {
        "before": _network(settings, settings.before, dataset),
        "after": _network(settings, settings.after, dataset),
    }
    frames = _sequence(settings, dataset)
    device = devices.device(settings.accelerator)
    classes = dict(zip(dataset.classes, dataset.colors, strict=True))

    def picture(one: Labelled) -> Array:
        said = {f"{name} distillation": [colored(labels, dataset.colors)] for name, labels in one.labels.items()}
        return np.asarray(gallery({"image": [one.frame.image], **said}, classes, scale=1))

    film, small = (settings.output.with_name(f"{settings.output.name}.{kind}") for kind in ("mp4", "gif"))
    with ExitStack() as stack:
        writes = [
            stack.enter_context(writers.film(film, settings.fps)),
            stack.enter_context(writers.gif(small, settings.fps, settings.width)),
        ]
        shown = {name: network.to(device).eval() for name, network in compared.items()}
        number = show(frames, shown, len(classes), [(picture, write) for write in writes], 4, "clip", frames.length)
    megabytes = (path.stat().st_size / 1e6 for path in (film, small))
    sizes = " · ".join(f"{path} ({size:.2f} MB)" for path, size in zip((film, small), megabytes, strict=True))
    print(f"{number} frame{'s' * (number != 1)} of {dataset.title()} → {sizes}")


def _is_network(node: Node | None) -> bool:
    return node is not None and node["_target_"] is not None


def _network(settings: ClipSettings, source: Path, dataset: SegmentationDataset) -> SegmentationModel:
    """The student of a run, or a network and its weights.

    Raises:
        UserError: a file without a model, or other classes than the data set's.
    """
    if source.is_dir():
        return candidates.network(source, None, None, dataset)[0]
    return candidates.network(None, settings.model, source, dataset)[0]


def _sequence(settings: ClipSettings, dataset: SegmentationDataset) -> FramesOf:
    """The first images whose names begin as the sequence's do.

    Raises:
        UserError: there is none.
    """
    named = [i for i in range(len(dataset)) if dataset.name(i).startswith(settings.sequence)]
    if not named:
        raise UserError(
            f"no image of {dataset.title()} {settings.split} is called {settings.sequence}…; the first is {dataset.name(0)}"
        )
    return FramesOf(dataset, named[: settings.frames])


if __name__ == "__main__":
    launch(clip, "clip")
