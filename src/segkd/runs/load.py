"""What a command looks at: a run's student, or a network and its file; on which data; and the teacher beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from segkd.build.datasets import open_dataset
from segkd.build.networks import build_network, check_teacher_weights
from segkd.config.instantiate import SpecDict, parse_spec
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import load_student, student_metadata

_NAME_DATA = "give dataset=NAME dataset.root=DIR"


def dataset_spec(node: SpecDict, *runs: Path | None) -> SpecDict:
    """The data set that is named, or else the one that the runs learnt from, at another `root` where that is given.

    Raises:
        UserError: none is named, and the runs do not tell it, or tell two; or it is not there.
    """
    if node.get("_target_") is not None:
        return node
    if strange := node.keys() - {"root"}:
        raise UserError(f"dataset.{', dataset.'.join(sorted(strange))} of which data set? {_NAME_DATA}")
    given = [run for run in runs if run is not None]
    if not given:
        raise UserError("say on which data: dataset=NAME dataset.root=DIR; a run's folder would bring its own")
    trained_on = {run: student_metadata(run).get("dataset", "data without a name") for run in given}
    told = {run: own for run in given if (own := _part(run, "dataset", _NAME_DATA)) is not None}
    if not told:
        raise UserError(
            f"the student in {given[0]} was trained on {trained_on[given[0]]}, and nothing says where it lies; {_NAME_DATA}"
        )
    own, *others = [_located(own, node.get("root"), run) for run, own in told.items()]
    if any(other[key] != own[key] for other in others for key in other.keys() & own.keys()):
        raise UserError(f"{' and '.join(map(str, told))} learnt from different data; {_NAME_DATA}")
    return own


def _located(own: SpecDict, root: str | None, run: Path) -> SpecDict:
    """A run's data set, where it lies now."""
    if "root" not in own:
        if root is not None:
            raise UserError(
                f"{run} learnt from data that lie nowhere; leave dataset.root out, or choose others with dataset=NAME"
            )
        return own
    place = Path(own["root"] if root is None else root)
    if not place.exists():
        since = ", seen from where the training started" if root is None else ""
        raise UserError(f"the data of {run} are not at {place}{since}; give dataset.root=DIR")
    return {**own, "root": str(place.resolve())}


def load_network(
    run: Path | None, node: SpecDict | None, checkpoint: Path | None, dataset: SegmentationDataset
) -> tuple[SegmentationModel, Path]:
    """The network to look at and the file it comes from.

    Raises:
        UserError: neither or both are named, or it does not fit the data set.
    """
    node = node if node and node["_target_"] else None  # model=none is none
    match run, node, checkpoint:
        case Path(), None, None:
            return _student(run, dataset), run / "student.safetensors"
        case None, dict(), Path():
            made, found = build_network({**node, "checkpoint": checkpoint}, dataset)
            if found:
                print(found, file=sys.stderr)
            return made, checkpoint
    raise UserError("say which network to take: either run=DIR, or model=NAME and checkpoint=FILE")


def load_teacher(run: Path | None, node: SpecDict, dataset: SegmentationDataset) -> SegmentationModel:
    """The network that a node names, or else the one that the run learnt from.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    if node.get("_target_") is None and run is not None:
        node = _part(run, "teacher", "give model@teacher=NAME") or node
    if node.get("_target_") is None:
        raise UserError("there is no teacher to compare with; give model@teacher=NAME and teacher.checkpoint=FILE")
    check_teacher_weights(node, "teacher")
    return build_network(node, dataset)[0]


def load_run_teacher(run: Path) -> SegmentationModel | None:
    """The network that a run learnt from, for the data that the run names; None if it had none.

    Raises:
        UserError: there is no config.yaml, or the data or the teacher's weights are no longer where it says.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"the teacher is the one that {path} names, and there is no such file; copy it again, or leave the teacher out"
        )
    try:
        config = yaml.safe_load(path.read_bytes())
        if config["teacher"]["_target_"] is None:
            return None
        data = open_dataset(parse_spec(config["dataset"]), config["data"]["val_split"])  # tells its statistics
        return build_network(parse_spec(config["teacher"]), data)[0]
    except (KeyError, TypeError, ValueError, yaml.YAMLError):
        raise UserError(f"{path} describes no teacher that can be built; copy it again from the run") from None
    except UserError as error:
        raise UserError(f"the teacher that {path} names cannot be had: {error}") from None


def _part(run: Path, name: str, otherwise: str) -> SpecDict | None:
    """What a run's config says of one part; None where there is no config, or it has no such part.

    Raises:
        UserError: what it says is nothing that can be built.
    """
    config = run / "config.yaml"
    if not config.is_file():
        return None
    try:
        node = yaml.safe_load(config.read_text())[name]
        return None if node["_target_"] is None else parse_spec(node)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{config} names no {name} that can be built ({said}); {otherwise}") from None


def _student(run: Path, dataset: SegmentationDataset) -> SegmentationModel:
    student = load_student(run)
    if student.num_classes not in (len(dataset.classes), len(dataset.classes) + 1):
        raise UserError(
            f"the student in {run} scores {student.num_classes} classes, {dataset.display_name()} has {len(dataset.classes)}; "
            "take the data set it was trained on"
        )
    return student
