"""Build the image-comparison sliders of a report: input image, ground truth and the predictions of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from segkd.builders.datasets import open_dataset
from segkd.data.base import SegmentationDataset
from segkd.data.drawing import colorize, encode_data_uri
from segkd.data.image_io import Color
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.predict.labeling import Labeling
from segkd.predict.pipeline import predict_frames
from segkd.predict.sources import Frame
from segkd.report.comparison import MethodResult
from segkd.runs.load import load_chosen_network, load_teacher, read_spec
from segkd.runs.run import Run
from segkd.utils.indices import space_indices

GROUND_TRUTH = "ground truth"
"""Name of the layer with the labels."""


class Scene(NamedTuple):
    """The layers of one scene: name → `data:` URI."""

    name: str
    layers: dict[str, str]


class ImageComparison(NamedTuple):
    """Scenes, and the layers that are shown left and right at first."""

    scenes: Sequence[Scene] = ()
    legend: Mapping[str, Color] = {}
    left: str = ""
    right: str = ""
    missing: str = ""
    """Why there are no scenes."""


def compare_images(methods: Sequence[MethodResult], count: int) -> ImageComparison:
    """Predict evenly spaced scenes of the validation split with the first student of each method.

    The dataset and the teacher are those of the first run with a teacher.

    Args:
        methods: with runs in folders that hold their students.
        count: of scenes.
    """
    if not count:
        return ImageComparison(missing="none were requested (images=0)")
    distilled = next((method.runs[0] for method in methods if not method.is_baseline), methods[0].runs[0])
    try:
        dataset = _open_validation_split(distilled)
        networks = _load_networks(methods, distilled, dataset)
    except UserError as error:
        return ImageComparison(missing=str(error))
    scenes = [_predict_scene(dataset, index, networks) for index in space_indices(len(dataset), count)]
    best = max(methods, key=lambda method: (not method.is_baseline, method.miou))
    left = next((method.name for method in methods if method.is_baseline and method is not best), GROUND_TRUTH)
    return ImageComparison(scenes, dict(zip(dataset.classes, dataset.colors, strict=True)), left, best.name)


def _open_validation_split(run: Run) -> SegmentationDataset:
    spec = read_spec(run.directory, "dataset", "its scenes are left out")
    if spec is None:
        raise UserError(f"{run.directory} names no dataset")
    return open_dataset(spec, run.config["data"]["val_split"])


def _load_networks(
    methods: Sequence[MethodResult], distilled: Run, dataset: SegmentationDataset
) -> dict[str, SegmentationModel]:
    networks = {}
    if distilled.terms:
        networks["teacher"] = load_teacher(distilled.directory, None, dataset).eval()
    for method in methods:
        networks[method.name], _ = load_chosen_network(method.runs[0].directory, None, None, dataset)
    return networks


def _predict_scene(dataset: SegmentationDataset, index: int, networks: Mapping[str, SegmentationModel]) -> Scene:
    sample, name = dataset[index], dataset.get_name(index)
    ((prediction,),) = predict_frames(networks, [[Frame(name, sample.image)]], Labeling(len(dataset.classes)))
    labels = {GROUND_TRUTH: sample.label, **prediction.labels}
    layers = {layer: encode_data_uri(colorize(classes, dataset.colors)) for layer, classes in labels.items()}
    return Scene(name, {"image": encode_data_uri(sample.image), **layers})
