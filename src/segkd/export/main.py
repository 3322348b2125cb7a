"""`python -m segkd.export`: write a network as a file that runs without segkd, and evaluate it before and after."""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from omegaconf import DictConfig
from pydantic import Field, PositiveInt
from torch import Tensor

from segkd import __version__
from segkd.builders.datasets import open_dataset
from segkd.config.instantiate import Spec
from segkd.config.schema import CheckClasses, DatasetOfRun, OptionalNetwork, Settings, load_settings
from segkd.data.base import SegmentationDataset
from segkd.data.own_ids import describe_ids
from segkd.errors import CheckFailed, UserError
from segkd.export.formats import FORMATS
from segkd.export.graph import Graph
from segkd.export.model_card import format_model_card
from segkd.export.runtimes import ExportedModel
from segkd.export.scoring import compare_scores, format_miou, resize_images, score_before_and_after
from segkd.export.verification import export_and_verify
from segkd.metrics import Scores
from segkd.models.base import count_parameters
from segkd.models.student_io import save_student
from segkd.runs.load import load_chosen_network, resolve_dataset
from segkd.utils.files import sha256, write_json


class CalibrationSettings(Settings):
    """The images on which int8 measures the ranges of activations."""

    split: str = Field(description="split with the calibration images of int8", json_schema_extra={"values": "NAME"})
    images: PositiveInt = Field(description="number of calibration images of int8")


class ExportSettings(Settings):
    """Settings of `python -m segkd.export`."""

    run: Path | None = Field(description="folder of a finished run, or", json_schema_extra={"values": "DIR"})
    model: OptionalNetwork = Field(
        default=None,
        description="a network, with its weights in checkpoint=FILE",
        json_schema_extra={"values": "NAME"},
    )
    checkpoint: Path | None = Field(description="weights of the network", json_schema_extra={"values": "FILE"})
    format: Literal["onnx", "openvino", "torchscript", "int8"] = Field(description="format of the file")
    include_normalization: bool = Field(description="let the file normalize; false: it takes normalized images")
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        description="the only height and width of images that the file takes; null: any",
        json_schema_extra={"values": "[HEIGHT,WIDTH]|null"},
    )
    dataset: DatasetOfRun = Field(description="the dataset that the file is scored on; null: the run's own")
    split: str = Field(description="the split that the file is scored on", json_schema_extra={"values": "NAME"})
    check_classes: CheckClasses
    max_miou_drop: float = Field(
        ge=0, description="points of mIoU that the file may lose; a file that loses more is removed (exit code 1)"
    )
    calibration: CalibrationSettings = Field(description="images on which int8 measures the ranges of activations")
    output_dir: Path | None = Field(
        description="folder for the file, its metadata (.json) and its model card (.md); null: the run's folder, or exports",
        json_schema_extra={"values": "DIR|null"},
    )
    workers: int = Field(ge=0, description="loading processes")


def export(cfg: DictConfig) -> float:
    """Write the file, its metadata and its model card if its mIoU holds; return its mIoU.

    Raises:
        UserError: a setting does not fit, or the data has no labeled pixel.
        CheckFailed: the file lost too much mIoU; nothing is kept.
    """
    settings = load_settings(cfg, ExportSettings)
    dataset_spec = resolve_dataset(settings.dataset, settings.run)
    dataset = open_dataset(dataset_spec, settings.split)
    network, checkpoint = load_chosen_network(
        settings.run, settings.model, settings.checkpoint, dataset, settings.check_classes
    )
    directory = settings.output_dir or settings.run or Path("exports")
    file = FORMATS[settings.format].files[0]
    graph = Graph(network, settings.include_normalization, settings.size)
    with export_atomically(directory) as folder:
        images = _generate_calibration_images(settings.calibration, dataset_spec, graph)
        runtime = export_and_verify(settings.format, graph, folder, images, torch.get_num_threads())
        exported = ExportedModel(runtime, network, graph.include_normalization)
        before, after, resized = score_before_and_after(
            network, exported, dataset, settings.size, settings.workers, file
        )
        _check_miou_drop(before, after, file, dataset, settings)
        metadata = {
            **_describe_file(settings.format, graph, dataset, checkpoint, folder),
            "scores": compare_scores(before, after, resized, dataset, settings.max_miou_drop),
            "recipe": _read_recipe(settings.run),
        }
        if settings.run is None:  # the folder then is like a run's, and other commands accept it as run=DIR
            classes, colors = list(dataset.classes), [list(color) for color in dataset.colors]
            named = {"dataset": dataset.display_name, "classes": classes, "colors": colors, **describe_ids(dataset)}
            save_student(network, folder, named)
        write_json(folder / f"{file}.json", metadata)
        (folder / f"{file}.md").write_text(format_model_card(metadata), encoding="utf-8")
    print(f"{directory / file} mIoU {format_miou(before, after)}")
    return after.miou


@contextlib.contextmanager
def export_atomically(directory: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move to `directory` at the end, and are deleted on an error.

    Raises:
        UserError: `directory` cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".export_") as folder:
            yield Path(folder)
            for path in sorted(Path(folder).iterdir()):
                path.replace(directory / path.name)
    except OSError as error:
        raise UserError(f"cannot write to {directory} ({error.strerror}); give another output_dir") from None


def _generate_calibration_images(settings: CalibrationSettings, dataset_spec: Spec, graph: Graph) -> Iterator[Tensor]:
    """Yield evenly spaced images of the calibration split, one at a time; the split is opened at the first."""
    dataset = open_dataset(dataset_spec, settings.split)
    count = min(settings.images, len(dataset))
    for index in range(count):
        image = dataset[index * len(dataset) // count].image
        images = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
        yield graph.prepare_input(resize_images(images, graph.size))


def _check_miou_drop(
    before: Scores, after: Scores, file: str, dataset: SegmentationDataset, settings: ExportSettings
) -> None:
    drop = 100 * (before.miou - after.miou)
    if not drop <= settings.max_miou_drop:  # also where it is NaN
        raise CheckFailed(
            f"{file} lost {drop:.2f} points of mIoU on {dataset.display_name} {settings.split} "
            f"({format_miou(before, after)}), and {settings.max_miou_drop:g} are allowed; it was not kept. "
            "See docs/how-to/export.md, or give max_miou_drop=X"
        )


def _describe_file(
    name: str, graph: Graph, dataset: SegmentationDataset, checkpoint: Path, folder: Path
) -> dict[str, Any]:
    files = FORMATS[name].files
    return {
        "file": files[0],
        "sha256": {name: sha256(folder / name) for name in files},
        "format": name,
        "network": type(graph.network).__name__,
        "parameters": count_parameters(graph.network),
        "smallest": graph.network.min_size,
        "size": graph.size,
        "outputs": graph.network.num_classes,
        "classes": list(dataset.classes),
        "normalization": {"inside": graph.include_normalization, **graph.network.normalization.to_dict()},
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256(checkpoint),
        "segkd": __version__,
    }


def _read_recipe(run: Path | None) -> dict[str, Any]:
    """Return how the student was trained, as far as its run says."""
    if run is None:
        return {}
    try:
        config = yaml.safe_load((run / "config.yaml").read_bytes())
        command = json.loads((run / "environment.json").read_bytes())["command"]
    except (OSError, ValueError, KeyError, yaml.YAMLError):
        return {}
    weights = {name: node.get("weight") for name, node in config["loss"].items()}
    return {
        "command": shlex.join(command),
        "seed": config["seed"],
        "losses and weights": ", ".join(
            f"{name} {'default' if weight is None else f'{weight:g}'}" for name, weight in weights.items()
        ),
        "teacher": config["teacher"].get("checkpoint") or "none",
    }
