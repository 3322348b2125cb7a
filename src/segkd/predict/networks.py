"""The networks that `segkd.predict` shows: the students of runs, or a network with checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from segkd.config.instantiate import NetworkSpec
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import read_state_dict
from segkd.models.class_names import ClassCheck
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, parse_normalization, read_metadata
from segkd.predict.rendering import STUDENT
from segkd.runs.load import load_chosen_network, load_run_teacher

log = logging.getLogger(__name__)


def load_students(
    runs: Sequence[Path], dataset: SegmentationDataset | None, check: ClassCheck
) -> dict[str, SegmentationModel]:
    """Return the students of runs, by the parts in which their folders differ; a single one is "student".

    Args:
        runs: folders of runs.
        dataset: if given, the classes must be those of the dataset.
        check: what classes must agree in.

    Raises:
        UserError: a run has no student, or one of other classes.
    """
    for run in runs:
        if run.is_file():
            raise UserError(f"{run} is not the folder of a run; for a file of weights, use model=NAME checkpoint={run}")
    return {
        name: load_student(run) if dataset is None else load_chosen_network(run, None, None, dataset, check)[0]
        for name, run in zip(name_paths(runs), runs, strict=True)
    }


def load_checkpoints(
    spec: NetworkSpec, checkpoints: Sequence[Path], dataset: SegmentationDataset | None, check: ClassCheck
) -> dict[str, SegmentationModel]:
    """Return a network with each of the checkpoints, by the parts in which the files differ; a single one is "student".

    Args:
        spec: the network.
        checkpoints: files of weights.
        dataset: names the classes; None if the files do.
        check: what the classes must agree in.

    Raises:
        UserError: a checkpoint is missing or does not fit.
    """
    names = name_paths([file.with_suffix("") for file in checkpoints])
    return {
        name: _load_described(spec, file)
        if dataset is None
        else load_chosen_network(None, spec, file, dataset, check)[0]
        for name, file in zip(names, checkpoints, strict=True)
    }


def read_description(file: Path) -> dict[str, Any]:
    """Return what segkd wrote beside weights or into a training checkpoint: the network and its classes.

    Raises:
        UserError: the file is missing or damaged, or nothing says its classes.
    """
    metadata = read_metadata(file)
    if metadata is None or not metadata.get("classes"):
        read_state_dict(file)  # a file that is missing or damaged is told first
        raise UserError(
            f"nothing names the classes of {file}; give dataset=NAME dataset.root=DIR, whose classes they are"
        )
    return metadata


def _load_described(spec: NetworkSpec, file: Path) -> SegmentationModel:
    if spec.class_map is not None or spec.init_from is not None:
        key = "init_from" if spec.class_map is None else "class_map"
        raise UserError(f"model.{key} needs a dataset; give dataset=NAME dataset.root=DIR, or leave it out")
    metadata = read_description(file)
    normalization = parse_normalization(metadata, file)
    network, summary = load_network(spec.target, spec.arguments, file, metadata["num_classes"], normalization)
    log.info(summary)
    return network


def load_with_teacher(run: Path, student: SegmentationModel, check: ClassCheck) -> dict[str, SegmentationModel]:
    """Return a run's student and, if the run had one of the same classes, its teacher."""
    teacher = load_run_teacher(run, check)
    return {STUDENT: student} if teacher is None else {STUDENT: student, "teacher": teacher}


def name_paths(paths: Sequence[Path]) -> list[str]:
    """Return the parts in which each path differs from the others; "student" for a single path.

    >>> name_paths([Path("runs/baseline/0"), Path("runs/distilled/0")])
    ['baseline', 'distilled']
    """
    if len(paths) == 1:
        return [STUDENT]
    start = _count_common([path.parts for path in paths])
    end = _count_common([path.parts[:start:-1] for path in paths])
    return ["/".join(path.parts[start : len(path.parts) - end]) or str(path) for path in paths]


def _count_common(sequences: Sequence[Sequence[str]]) -> int:
    """Return how many first elements all sequences share."""
    levels = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
