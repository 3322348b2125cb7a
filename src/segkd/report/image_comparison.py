"""Pictures of the same scene, to be wiped between: what was seen, what is true, and what networks say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from segkd.build.datasets import open_dataset
from segkd.build.networks import build_network
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import load_student
from segkd.predict.drawing import Color, colorize, data_uri
from segkd.predict.pipeline import predict_frames
from segkd.predict.sources import Frame
from segkd.report.comparison import MethodResult
from segkd.runs.run import Run


class Scene(NamedTuple):
    """Layers of one scene, each a `data:` address, by name."""

    name: str
    layers: dict[str, str]


class ImageComparison(NamedTuple):
    """Scenes, and what lies left and right at first."""

    scenes: Sequence[Scene] = ()
    legend: Mapping[str, Color] = {}
    left: str = ""
    right: str = ""
    missing: str = ""
    """Why there are none."""


def compare_images(rows: Sequence[MethodResult], count: int) -> ImageComparison:
    """`count` scenes of the validation split, evenly spread, as the first student of each method labels them.

    The data and the teacher are those of the first run that had one.
    """
    if not count:
        return ImageComparison(missing="none were asked for")
    taught = next((row.runs[0] for row in rows if row.runs[0].terms), rows[0].runs[0])
    try:
        dataset = open_dataset(taught.config["dataset"], taught.config["data"]["val_split"])
        labellers = _labellers(rows, taught, dataset)
    except UserError as error:
        return ImageComparison(missing=str(error))
    count = min(count, len(dataset))
    scenes = [_scene(dataset, i * len(dataset) // count, labellers) for i in range(count)]
    best = max(rows, key=lambda row: (bool(row.runs[0].terms), fmean(run.miou for run in row.runs)))
    left = next((row.name for row in rows if not row.runs[0].terms and row is not best), "truth")
    return ImageComparison(scenes, dict(zip(dataset.classes, dataset.colors, strict=True)), left, best.name)


def _labellers(rows: Sequence[MethodResult], taught: Run, dataset: SegmentationDataset) -> dict[str, SegmentationModel]:
    teacher = {}
    if taught.terms:
        teacher = {"teacher": build_network(taught.config["teacher"], dataset)[0].eval()}
    return {**teacher, **{row.name: load_student(row.runs[0].directory) for row in rows}}


def _scene(dataset: SegmentationDataset, index: int, labellers: Mapping[str, SegmentationModel]) -> Scene:
    sample, name = dataset[index], dataset.name(index)
    ((labelled,),) = predict_frames(labellers, [[Frame(name, sample.image)]], len(dataset.classes))
    shown = {"truth": sample.label, **labelled.labels}
    layers = {layer: data_uri(colorize(labels, dataset.colors)) for layer, labels in shown.items()}
    return Scene(name, {"image": data_uri(sample.image), **layers})
