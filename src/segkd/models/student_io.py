"""Saving and loading students: `student.safetensors` (weights) and `student.yaml` (how to rebuild the network).

A *spec* is that description of a network as plain values; training checkpoints hold one too. `student.yaml` begins with the
SHA-256 of the weights and of its own other entries, so that no damage goes unnoticed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from safetensors.torch import save

from segkd import __version__
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import (
    StateDict,
    count_not_finite,
    flush_denormals,
    is_training_state,
    load_state_dict_strict,
    read_state_dict,
    safe_load,
)
from segkd.models.renamed_specs import update_names
from segkd.models.wrapped import WrappedModule
from segkd.utils.files import dump_yaml, sha256
from segkd.utils.plugins import (
    describe_error,
    explain_missing_plugin,
    is_of_plugin,
    load_plugins,
    refuse_plugins_in_file,
)

_SPEC_KEYS = {"network", "num_classes", "arguments", "normalization"}


def save_student(
    student: SegmentationModel, directory: str | Path, metadata: Mapping[str, Any] = MappingProxyType({})
) -> int:
    """Write `student.safetensors` and `student.yaml`; return how many denormal weights were zeroed.

    Args:
        student: the network; it stays as it is.
        directory: the folder to write to; made if it is not there.
        metadata: further entries of the yaml, such as `colors`, and `classes` where they are not the network's own.

    Raises:
        UserError: weights are not finite, or the network cannot be rebuilt from a file.
        OSError: a file cannot be written; earlier files of that name stay as they were.
    """
    directory = Path(directory)
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in student.state_dict().items()}
    if count := count_not_finite(state):
        raise UserError(
            f"{count:,} of the student's weights are not finite: its training has diverged, and no student was written to "
            f"{directory}; train again with a lower learning rate or trainer.gradient_clip"
        )
    zeroed = flush_denormals(state)
    weights = save(state)
    own = {} if student.classes is None else {"classes": list(student.classes), "segkd": __version__}
    description = _format_description({**to_spec(student), **own, **metadata}, weights)
    directory.mkdir(parents=True, exist_ok=True)
    contents = {directory / "student.safetensors": weights, directory / "student.yaml": description.encode()}
    # Both files are complete before either gets its name. A full disk stays an OSError: `train` says how to resume.
    partial = {path: path.with_name(f"{path.name}.partial") for path in contents}
    for path, content in contents.items():
        partial[path].write_bytes(content)
    for path, part in partial.items():
        part.replace(path)
    return zeroed


def load_student(path: str | Path, plugins: Iterable[str] = ()) -> SegmentationModel:
    """Load the student of a run, in evaluation mode, from `student.safetensors` and `student.yaml`.

    Args:
        path: the folder of the run, or `student.safetensors` with `student.yaml` beside it.
        plugins: packages of your own that define the network; they are imported.

    Raises:
        UserError: a file is missing or damaged, or the yaml names something that is no network of segkd or of a plugin.
    """
    load_plugins(plugins)
    path = _locate_weights(path)
    metadata = read_student_metadata(path)
    try:
        student = from_spec(metadata, path)
        load_state_dict_strict(student, read_weights(path, metadata), path)
    except UserError as error:
        saved_by = str(metadata.get("segkd", __version__))
        if saved_by == __version__:
            raise
        raise UserError(f"{error}; or install segkd {saved_by}, which saved it (this is {__version__})") from None
    return student.eval()


def read_student_metadata(path: str | Path) -> dict[str, Any]:
    """Return the content of `student.yaml`: the spec of the student, and the dataset it was trained on.

    Args:
        path: the folder of the run, or `student.safetensors` in it.

    Raises:
        UserError: the file is missing or damaged.
    """
    weights = _locate_weights(path)
    metadata = read_metadata(weights)
    if metadata is None:
        missing = weights.with_suffix(".yaml").name
        raise UserError(f"no student in {weights.parent}: {missing} is missing; give the folder of a finished run")
    return metadata


def _locate_weights(path: str | Path) -> Path:
    return Path(path) if Path(path).suffix == ".safetensors" else Path(path) / "student.safetensors"


def read_metadata(checkpoint: Path) -> dict[str, Any] | None:
    """Return the spec that segkd wrote beside weights or into a training checkpoint; None for other files.

    Raises:
        UserError: it is damaged.
    """
    if checkpoint.suffix == ".ckpt":
        content = safe_load(checkpoint)
        return _check_spec(content["student"], checkpoint) if is_training_state(content) else None
    path = checkpoint.with_suffix(".yaml")
    if checkpoint.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        metadata = yaml.safe_load(path.read_bytes())
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ):  # what PyYAML raises on damaged files
        metadata = None
    if not isinstance(metadata, dict) or not metadata.keys() >= _SPEC_KEYS:
        raise UserError(f"{path} does not describe a network; copy it again from the run, beside {checkpoint.name}")
    refuse_plugins_in_file(metadata, path)
    expected = _read_hash(metadata, "description")
    if expected is not None and expected != _hash_description(metadata):
        raise UserError(
            f"{path} differs from its sha256 and is damaged or was edited; copy it again from the run, or delete its entry "
            "'sha256' if the change is yours"
        )
    return _check_spec(metadata, path)


def read_weights(checkpoint: Path, metadata: Mapping[str, Any] | None) -> StateDict:
    """Return the state dict in a file.

    Args:
        checkpoint: the file.
        metadata: what `read_metadata` returns for it.

    Raises:
        UserError: see `read_state_dict`; or the weights differ from the hash in `student.yaml`.
    """
    state = read_state_dict(checkpoint)
    expected = _read_hash(metadata or {}, "weights")
    if expected is not None and expected != sha256(checkpoint):
        raise UserError(
            f"{checkpoint} differs from the sha256 in {checkpoint.with_suffix('.yaml').name} and is damaged or was replaced; copy "
            "both again from the run, or delete the entry 'sha256' there if the change is yours"
        )
    return state


def to_spec(network: SegmentationModel) -> dict[str, Any]:
    """Return everything that rebuilds a network except its weights, as plain values.

    Raises:
        UserError: a module of the user's own is wrapped, and nothing says how to build it.
    """
    if type(network) is WrappedModule:
        name = network.network_name
        raise UserError(
            f"a wrapped {name} cannot be rebuilt from a file; save its own weights, torch.save(student.network.state_dict(), …), "
            f'or build it by its path, segkd.create_model("adapter", …, network="my_pkg.{name}")'
        )
    return {
        "network": f"{type(network).__module__}.{type(network).__qualname__}",
        "num_classes": network.num_classes,
        "arguments": network.arguments,
        "normalization": network.normalization.to_dict(),
    }


def from_spec(spec: Mapping[str, Any], checkpoint: Path) -> SegmentationModel:
    """Build the network that a spec describes, with random weights; it knows its classes where the spec names them.

    Raises:
        UserError: the spec of `checkpoint` names no network of segkd, or one that cannot be built so.
    """
    file = checkpoint.with_suffix(".yaml")
    network, name = _import_network(str(spec["network"]), file), str(spec["network"]).rpartition(".")[2]
    normalization = parse_normalization(spec, file)
    try:
        built = network(num_classes=spec["num_classes"], normalization=normalization, **spec["arguments"])
    except (TypeError, ValueError, RuntimeError, MemoryError, OverflowError, ArithmeticError) as error:
        raise UserError(f"{file} describes no {name} that can be built ({error}); copy it again from the run") from None
    built.classes = spec.get("classes")
    return built


def _import_network(path: str, file: Path) -> type[SegmentationModel]:
    """Return the class of a network, of segkd or of a plugin.

    Raises:
        UserError: the path, which `file` names, is no such class, or its plugin is not named.
    """
    module, _, name = path.rpartition(".")
    is_own = is_of_plugin(path) and "__main__" not in path.split(".")  # a program, which would run
    network, is_allowed = None, module.startswith("segkd.models.") or is_own
    try:
        network = getattr(importlib.import_module(module), name, None) if is_allowed else None
    except (Exception, SystemExit) as error:
        if is_own:
            raise UserError(f"{file} names '{path}', which cannot be imported: {describe_error(error)}") from None
    if isinstance(network, type) and issubclass(network, SegmentationModel) and not inspect.isabstract(network):
        return network
    if is_of_plugin(path):
        raise UserError(
            f"{file} names '{path}', and the plugin has no network of that name; take the version that trained it"
        )
    cure = explain_missing_plugin(path) or "copy it again from the run"
    raise UserError(f"{file} names '{path}', which is no network of segkd; {cure}")


def parse_normalization(spec: Mapping[str, Any], file: Path) -> Normalization:
    """Return the normalization of a spec.

    Raises:
        UserError: the spec, from `file`, has none that can be built.
    """
    try:
        return Normalization(**spec["normalization"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} describes no normalization ({error}); copy it again from the run") from None


def _check_spec(spec: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return a spec with today's names, and with the names of its classes as a tuple of strings, where it has them.

    Raises:
        UserError: `file` names other classes than the network has outputs.
    """
    if not spec.keys() >= _SPEC_KEYS:
        raise UserError(f"{file} does not describe a network; copy it again from the run")
    updated, classes, num_outputs = update_names(spec), spec.get("classes"), spec["num_classes"]
    if classes is None:
        return updated
    if not isinstance(classes, (list, tuple)) or num_outputs not in (len(classes), len(classes) + 1):
        raise UserError(f"{file} does not name the classes of {num_outputs} outputs; copy it again from the run")
    return {**updated, "classes": tuple(map(str, classes))}


def _format_description(entries: Mapping[str, Any], weights: bytes) -> str:
    """Return `student.yaml`: the entries, below the SHA-256 of the weights and of the entries."""
    text = dump_yaml(dict(entries))
    # What a reader of the text gets is hashed, not what was written: a tuple, for example, becomes a list.
    hashes = {"weights": hashlib.sha256(weights).hexdigest(), "description": _hash_description(yaml.safe_load(text))}
    return yaml.safe_dump({"sha256": hashes}, sort_keys=False) + text


def _hash_description(entries: Mapping[str, Any]) -> str:
    others = {str(key): value for key, value in entries.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, default=str).encode()).hexdigest()


def _read_hash(metadata: Mapping[str, Any], name: str) -> str | None:
    """Return a hash of `student.yaml`; None where it has none, as in version 0.1.0."""
    hashes = metadata.get("sha256")
    return str(hashes.get(name)) if isinstance(hashes, Mapping) else None
