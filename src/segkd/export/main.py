"""`python -m segkd.export`: a network as a file that runs without segkd, scored before and after."""

from __future__ import annotations

import contextlib
import json
import math
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
from segkd.build.datasets import open_dataset
from segkd.config.instantiate import SpecDict
from segkd.config.schema import DatasetNode, Settings, SpecNode, load_settings
from segkd.data.base import SegmentationDataset
from segkd.errors import CheckFailed, UserError
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.export.formats import FORMATS, export_and_verify
from segkd.export.graph import Graph
from segkd.export.model_card import write_model_card
from segkd.export.runtimes import ExportedModel
from segkd.metrics import Scores
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.checkpoint_io import save_student
from segkd.runs.load import dataset_spec, load_network
from segkd.utils.files import sha256


class CalibrationSettings(Settings):
    """What int8 learns the activations' ranges from."""

    split: str
    images: PositiveInt


class ExportSettings(Settings):
    """`python -m segkd.export`."""

    run: Path | None
    model: SpecNode | None = None
    checkpoint: Path | None
    format: Literal["onnx", "openvino", "torchscript", "int8"]
    normalization: Literal["inside", "outside"]
    dataset: DatasetNode
    split: str
    max_miou_drop: float = Field(ge=0)
    calibration: CalibrationSettings
    output_dir: Path | None
    workers: int = Field(ge=0)


def export(cfg: DictConfig) -> float:
    """Write the file with its facts and its card, if it scores as the network does; returns its mIoU."""
    settings = load_settings(cfg, ExportSettings)
    data = dataset_spec(settings.dataset, settings.run)
    dataset = open_dataset(data, settings.split)
    network, checkpoint = load_network(settings.run, settings.model, settings.checkpoint, dataset)
    directory = settings.output_dir or settings.run or Path("exports")
    file = FORMATS[settings.format].files[0]
    graph = Graph(network, settings.normalization == "inside")
    with export_atomically(directory) as folder:
        run = export_and_verify(
            settings.format, graph, folder, _calibration(settings.calibration, data, graph), torch.get_num_threads()
        )
        before = _scores(network, dataset, settings, "the network")
        if math.isnan(before.miou):
            raise UserError(
                f"{dataset.display_name()} {settings.split} has no labelled pixel to score; choose another split"
            )
        after = _scores(ExportedModel(run, network, graph.inside), dataset, settings, file)
        lost = 100 * (before.miou - after.miou)
        if not lost <= settings.max_miou_drop:
            raise CheckFailed(
                f"{file} lost {lost:.2f} points of mIoU on {dataset.display_name()} {settings.split} ({_said(before, after)}), and "
                f"{settings.max_miou_drop:g} are allowed; it was not kept. See docs/how-to/export.md, or give max_miou_drop=X"
            )
        facts = {
            **_facts(settings.format, graph, dataset, checkpoint, folder),
            "scores": _compared(before, after, dataset, settings),
            "recipe": _recipe(settings.run),
        }
        if settings.run is None:  # then the folder is as a run's, and other commands take it: run=DIR
            save_student(network, folder, {"dataset": dataset.display_name(), "classes": list(dataset.classes)})
        (folder / f"{file}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        (folder / f"{file}.md").write_text(write_model_card(facts))
    print(f"{directory / file} mIoU {_said(before, after)}")
    return after.miou


@contextlib.contextmanager
def export_atomically(directory: Path) -> Iterator[Path]:
    """A folder whose files move to `directory` at the end, and are gone if the end is not reached.

    Raises:
        UserError: something cannot be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".export_") as folder:
            yield Path(folder)
            for path in sorted(Path(folder).iterdir()):
                path.replace(directory / path.name)
    except OSError as error:
        raise UserError(f"cannot write to {directory} ({error.strerror}); give another output_dir") from None


def _calibration(settings: CalibrationSettings, data: SpecDict, graph: Graph) -> Iterator[Tensor]:
    """Evenly spread images of the calibration split, one at a time; opened when the first is asked for."""
    dataset = open_dataset(data, settings.split)
    count = min(settings.images, len(dataset))
    for index in range(count):
        image = dataset[index * len(dataset) // count].image
        yield graph.taken(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))


def _scores(network: SegmentationModel, dataset: SegmentationDataset, settings: ExportSettings, what: str) -> Scores:
    cpu = torch.device("cpu")
    matrix = compute_confusion_matrix(network, dataset, device=cpu, workers=settings.workers, progress=what)
    return Scores.of(matrix, len(dataset.classes))


def _said(before: Scores, after: Scores) -> str:
    return f"{100 * after.miou:.2f}, the network {100 * before.miou:.2f}"


def _compared(before: Scores, after: Scores, dataset: SegmentationDataset, settings: ExportSettings) -> dict[str, Any]:
    then, now = before.facts(dataset.classes), after.facts(dataset.classes)
    where = {"dataset": dataset.display_name(), "split": settings.split, "images": len(dataset)}
    names = ("miou", "iou")
    return {
        **where,
        **{name: now[name] for name in names},
        **{f"{name}_before": then[name] for name in names},
        "max_miou_drop": settings.max_miou_drop,
    }


def _facts(name: str, graph: Graph, dataset: SegmentationDataset, checkpoint: Path, folder: Path) -> dict[str, Any]:
    files = FORMATS[name].files
    return {
        "file": files[0],
        "sha256": {name: sha256(folder / name) for name in files},
        "format": name,
        "network": type(graph.network).__name__,
        "parameters": count_parameters(graph.network),
        "smallest": graph.network.min_size,
        "outputs": graph.network.num_classes,
        "classes": list(dataset.classes),
        "normalization": {"inside": graph.inside, **graph.network.normalization.facts()},
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256(checkpoint),
        "segkd": __version__,
    }


def _recipe(run: Path | None) -> dict[str, Any]:
    """How the student was trained, from what its run left."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text()) if run is not None else {}
        command = json.loads((run / "environment.json").read_text())["command"] if run is not None else None
    except (OSError, ValueError, KeyError, yaml.YAMLError):
        return {}
    if command is None:
        return {}
    weights = {name: node.get("weight") for name, node in config["loss"].items()}
    return {
        "command": f"`{' '.join(command)}`",
        "seed": config["seed"],
        "losses and weights": ", ".join(
            f"{name} {'its default' if weight is None else f'{weight:g}'}" for name, weight in weights.items()
        ),
        "teacher": config["teacher"].get("checkpoint") or "none",
    }
