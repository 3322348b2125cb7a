"""Load what a command works on: the student of a run or a network with its file, the dataset, and the teacher."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from segkd.builders.datasets import open_dataset
from segkd.builders.networks import build_network, check_teacher_weights
from segkd.config.instantiate import NetworkSpec, Spec, parse_optional_spec, parse_spec
from segkd.config.schema import DatasetRoot
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.class_names import ClassCheck, OtherClassesError, check_classes
from segkd.models.student_io import load_student, read_student_metadata
from segkd.runs.compatibility import rename_network_keys
from segkd.runs.paths import list_places, locate_paths
from segkd.utils.files import sha256
from segkd.utils.plugins import refuse_plugins_in_file

log = logging.getLogger(__name__)

_changed_configs: set[str] = set()  # hashes of those that were named

_CHOOSE_DATA = "give dataset=NAME dataset.root=DIR"


def resolve_dataset(choice: Spec | DatasetRoot, *runs: Path | None) -> Spec:
    """Return the chosen dataset, or else the one that the runs were trained on, at another root if one is given.

    Raises:
        UserError: none is chosen, and the runs name none or different ones; or it is not there.
    """
    if isinstance(choice, Spec):
        return choice
    given = [run for run in runs if run is not None]
    if not given:
        raise UserError(
            "no dataset given; choose one with dataset=NAME dataset.root=DIR, or give a run, which names its own"
        )
    titles = {run: read_student_metadata(run).get("dataset", "data without a name") for run in given}
    specs = {run: spec for run in given if (spec := read_spec(run, "dataset", _CHOOSE_DATA)) is not None}
    if not specs:
        raise UserError(
            f"the student in {given[0]} was trained on {titles[given[0]]}, and nothing says where it is; {_CHOOSE_DATA}"
        )
    first, *others = [relocate(spec, choice.path, run) for run, spec in specs.items()]
    if any(not _is_same_dataset(first, other) for other in others):
        raise UserError(f"{' and '.join(map(str, specs))} were trained on different data; {_CHOOSE_DATA}")
    return first


def relocate(spec: Spec, root: str | None, run: Path) -> Spec:
    """Return a run's dataset at `root`, or at its former place if there is none.

    Raises:
        UserError: it is not there, or has no files at all.
    """
    if "root" not in spec.arguments:
        if root is not None:
            raise UserError(
                f"{run} was trained on data without files; leave dataset.root out, or choose another with dataset=NAME"
            )
        return spec
    recorded = spec.arguments["root"]
    if root is None and recorded is None:
        raise UserError(f"{run} does not say where its data are; give dataset.root=DIR")
    places = list_places(recorded, run) if root is None else [Path(root)]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise UserError(f"the data of {run} are not at {' or '.join(map(str, places))}; give dataset.root=DIR")
    return dataclasses.replace(spec, arguments={**spec.arguments, "root": str(path.resolve())})


def load_chosen_network(
    run: Path | None,
    spec: NetworkSpec | None,
    checkpoint: Path | None,
    dataset: SegmentationDataset,
    check: ClassCheck = "names",
) -> tuple[SegmentationModel, Path]:
    """Return the network and the file that its weights come from; it has the classes of the dataset, as far as `check` says.

    Raises:
        UserError: neither or both of run and network are given, or it does not fit the dataset.
    """
    match run, spec, checkpoint:
        case Path(), None, None:
            student = load_student(run)
            cure = "use the dataset it was trained on"
            check_classes(student, dataset.classes, check, f"the student in {run}", dataset.display_name, cure)
            return student, run / "student.safetensors"
        case None, NetworkSpec(), Path():
            weighted = dataclasses.replace(spec, checkpoint=str(checkpoint))
            return build_network(weighted, dataset, check=check), checkpoint
    raise UserError("no network given; give run=DIR, or model=NAME and checkpoint=FILE")


def load_teacher(
    run: Path | None, spec: NetworkSpec | None, dataset: SegmentationDataset, check: ClassCheck = "names"
) -> SegmentationModel:
    """Return the network that is given, or else the teacher of the run.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    if spec is None and run is not None:
        spec = _read_network(run, "teacher", "give model@teacher=NAME")
        check = _choose_check(check, read_config(run, "give model@teacher=NAME"))
    if spec is None:
        raise UserError("there is no teacher to compare with; give model@teacher=NAME and teacher.checkpoint=FILE")
    check_teacher_weights(spec, "teacher")
    return build_network(spec, dataset, check=check)


def load_run_teacher(run: Path, check: ClassCheck = "names") -> SegmentationModel | None:
    """Return the teacher of a run, for the data that the run names; None if it had none, or one of other classes.

    Raises:
        UserError: there is no config.yaml, or the data or the teacher's weights are no longer where it says.
    """
    path = run / "config.yaml"
    config = read_config(run, "copy it again from the run, or leave the teacher out")
    if config is None:
        raise UserError(f"{path} is missing, which names the teacher; copy it again, or leave the teacher out")
    try:
        if config["teacher"]["_target_"] is None:
            return None
        spec = parse_optional_spec(rename_network_keys(config["teacher"]))
        if not isinstance(spec, NetworkSpec):
            raise ValueError
        data = parse_spec(config["dataset"], kind=SegmentationDataset)
        dataset = open_dataset(data, config["data"]["val_split"])  # for its statistics
        return build_network(spec, dataset, check=_choose_check(check, config))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f" ({' '.join(str(error).split())})" if isinstance(error, ValueError) and str(error) else ""
        raise UserError(f"{path} describes no teacher that can be built{reason}; copy it again from the run") from None
    except OtherClassesError as error:  # the run used its features alone
        log.warning("the teacher of %s is left out: %s", run, error)
        return None
    except UserError as error:
        raise UserError(f"the teacher that {path} names cannot be loaded: {error}") from None


def read_spec(run: Path, name: str, cure: str) -> Spec | None:
    """Return a part of a run's config; None where there is no config, or the part is "none".

    Raises:
        UserError: it describes nothing that can be built; the sentence ends with the cure.
    """
    config = read_config(run, cure)
    if config is None:
        return None
    try:
        node = config[name]
        return None if node["_target_"] is None else parse_optional_spec(rename_network_keys(node))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{run / 'config.yaml'} names no {name} that can be built ({reason}); {cure}") from None


def read_config(run: Path, cure: str) -> dict[str, Any] | None:
    """Return a run's config, with its paths as they are found from here; None where there is none.

    Raises:
        UserError: it is damaged; the sentence ends with the cure.
    """
    path = run / "config.yaml"
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_bytes())
        if isinstance(config, dict):
            refuse_plugins_in_file(config, path)
            _warn_of_changes(run, path)
            return cast("dict[str, Any]", locate_paths(config, run))
        reason = "it holds no keys"
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
    raise UserError(f"{path} is damaged ({reason}); {cure}")


def _warn_of_changes(run: Path, config: Path) -> None:
    """Say once that a config is not as its training wrote it, which may have been meant."""
    if (run / "student.yaml").is_file():
        expected, found = read_student_metadata(run).get("config_sha256"), sha256(config)
        if expected is not None and expected != found and found not in _changed_configs:
            _changed_configs.add(found)
            log.warning("%s is not as the training wrote it; it is read as it is now", config)


def _choose_check(given: ClassCheck, config: Mapping[str, Any] | None) -> ClassCheck:
    """Return what a run's teacher and its data must agree in: as little as the command or the training asks for."""
    return "count" if given == "count" or (config or {}).get("check_classes") == "count" else "names"


def _read_network(run: Path, name: str, cure: str) -> NetworkSpec | None:
    spec = read_spec(run, name, cure)
    if spec is not None and not isinstance(spec, NetworkSpec):
        raise UserError(f"{run / 'config.yaml'} names no {name} that is a network; {cure}")
    return spec


def _is_same_dataset(one: Spec, other: Spec) -> bool:
    shared = one.arguments.keys() & other.arguments.keys()
    return one.target is other.target and all(one.arguments[key] == other.arguments[key] for key in shared)
