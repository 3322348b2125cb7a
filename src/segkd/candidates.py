"""The networks that a command looks at: a run's student, or a network and its file; and the teacher beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig

from segkd import networks
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.weights import load_student, trained_facts
from segkd.nodes import Node, fits


def network(
    run: Path | None, node: Node | None, checkpoint: Path | None, dataset: SegmentationDataset
) -> tuple[SegmentationModel, Path]:
    """The network to look at and the file it comes from.

    Raises:
        UserError: neither or both are named, it does not fit the data set, or a run's data set is not the one that nobody chose.
    """
    node = node if node and node["_target_"] else None  # model=none is none
    match run, node, checkpoint:
        case Path(), None, None:
            _check_chosen(run, dataset)
            return _student(run, dataset), run / "student.safetensors"
        case None, dict(), Path():
            made, found = networks.network({**node, "checkpoint": checkpoint}, dataset)
            if found:
                print(found, file=sys.stderr)
            return made, checkpoint
    raise UserError("say which network to take: either run=DIR, or model=NAME and checkpoint=FILE")


def _check_chosen(run: Path, dataset: SegmentationDataset) -> None:
    """The default data set is not the one of every run.

    Raises:
        UserError: no data set is chosen, and the student was trained on another.
    """
    trained_on, given = trained_facts(run).get("dataset"), dataset.title()
    chosen = any(override.startswith("dataset=") for override in HydraConfig.get().overrides.task)
    if not chosen and trained_on not in (None, given):
        raise UserError(
            f"the student in {run} was trained on {trained_on}; say which data to score it on: dataset=NAME"
        )


def teacher(run: Path | None, node: Node, dataset: SegmentationDataset) -> SegmentationModel:
    """The network that a node names, or else the one that the run learnt from.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    config = None if run is None else run / "config.yaml"
    if node.get("_target_") is None and config is not None and config.is_file():
        try:
            node = fits(yaml.safe_load(config.read_text())["teacher"])
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{config} names no teacher that can be built ({error}); give model@teacher=NAME") from None
    if node.get("_target_") is None:
        raise UserError("there is no teacher to compare with; give model@teacher=NAME and teacher.checkpoint=FILE")
    networks.check_weights(node, "teacher")
    return networks.network(node, dataset)[0]


def _student(run: Path, dataset: SegmentationDataset) -> SegmentationModel:
    student = load_student(run)
    if student.num_classes not in (len(dataset.classes), len(dataset.classes) + 1):
        raise UserError(
            f"the student in {run} scores {student.num_classes} classes, {dataset.title()} has {len(dataset.classes)}; "
            "take the data set it was trained on"
        )
    return student
