"""Saving and loading students: `student.safetensors` (weights) and `student.yaml` (how to rebuild the network).

A *spec* is that description of a network as plain values; training checkpoints hold one too.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save

from segkd import __version__
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import flush_denormals, load_state_dict_strict, read_state_dict, safe_load

RENAMED_ARGUMENTS = {"segkd.models.adapter.Adapter": {"taps": "features"}}
"""Constructor arguments that version 0.1.0 wrote under another name, by network."""
RENAMED_FEATURES = {"scores": "kd_logits"}
"""Features that version 0.1.0 wrote under another name, in an adapter's `taps`."""

_SPEC_KEYS = {"network", "num_classes", "arguments", "normalization"}


def save_student(student: SegmentationModel, directory: Path, metadata: Mapping[str, Any]) -> int:
    """Write `student.safetensors` and `student.yaml`; return how many denormal weights were zeroed.

    Args:
        student: the network; it stays as it is.
        directory: the folder to write to.
        metadata: further entries of the yaml, such as the classes.

    Raises:
        OSError: a file cannot be written; earlier files of that name stay as they were.
    """
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in student.state_dict().items()}
    zeroed = flush_denormals(state)
    description = yaml.safe_dump({**to_spec(student), **metadata}, sort_keys=False, allow_unicode=True)
    contents = {directory / "student.safetensors": save(state), directory / "student.yaml": description.encode()}
    # Both files are complete before either gets its name. A full disk stays an OSError: `train` says how to resume.
    partial = {path: path.with_name(f"{path.name}.partial") for path in contents}
    for path, content in contents.items():
        partial[path].write_bytes(content)
    for path, part in partial.items():
        part.replace(path)
    return zeroed


def load_student(directory: str | Path) -> SegmentationModel:
    """Load the student of a run, in evaluation mode, from `student.safetensors` and `student.yaml`.

    Raises:
        UserError: a file is missing or damaged, or the yaml names something that is no network of segkd.
    """
    path = Path(directory) / "student.safetensors"
    metadata = read_student_metadata(directory)
    try:
        student = from_spec(metadata, path)
        load_state_dict_strict(student, read_state_dict(path), path)
    except UserError as error:
        saved_by = str(metadata.get("segkd", __version__))
        if saved_by == __version__:
            raise
        raise UserError(f"{error}; or install segkd {saved_by}, which saved it (this is {__version__})") from None
    return student.eval()


def read_student_metadata(directory: str | Path) -> dict[str, Any]:
    """Return the content of `student.yaml`: the spec of the student, and the dataset it was trained on.

    Raises:
        UserError: the file is missing or damaged.
    """
    metadata = read_metadata(Path(directory) / "student.safetensors")
    if metadata is None:
        raise UserError(f"no student in {directory}: student.yaml is missing; give the folder of a finished run")
    return metadata


def read_metadata(checkpoint: Path) -> dict[str, Any] | None:
    """Return the spec that segkd wrote beside weights or into a training checkpoint; None for other files.

    Raises:
        UserError: it is damaged.
    """
    if checkpoint.suffix == ".ckpt":
        content = safe_load(checkpoint)
        spec = content.get("student") if isinstance(content, Mapping) else None
        return update_names(spec) if isinstance(spec, Mapping) else None
    path = checkpoint.with_suffix(".yaml")
    if checkpoint.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        metadata = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError:
        metadata = None
    if not isinstance(metadata, dict) or not metadata.keys() >= _SPEC_KEYS:
        raise UserError(f"{path} does not describe a network; copy it again from the run, beside {checkpoint.name}")
    return update_names(metadata)


def to_spec(network: SegmentationModel) -> dict[str, Any]:
    """Return everything that rebuilds a network except its weights, as plain values."""
    return {
        "network": f"{type(network).__module__}.{type(network).__qualname__}",
        "num_classes": network.num_classes,
        "arguments": network.arguments,
        "normalization": network.normalization.to_dict(),
    }


def from_spec(spec: Mapping[str, Any], checkpoint: Path) -> SegmentationModel:
    """Build the network that a spec describes, with random weights.

    Raises:
        UserError: the spec of `checkpoint` names no network of segkd, or one that cannot be built so.
    """
    file = checkpoint.with_suffix(".yaml")
    module, _, name = str(spec["network"]).rpartition(".")
    try:
        network = getattr(importlib.import_module(module), name, None) if module.startswith("segkd.models.") else None
    except ImportError:
        network = None
    if not (isinstance(network, type) and issubclass(network, SegmentationModel)):
        raise UserError(f"{file} names '{spec['network']}', which is no network of segkd; copy it again from the run")
    normalization = parse_normalization(spec, file)
    try:
        return network(num_classes=spec["num_classes"], normalization=normalization, **spec["arguments"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} describes no {name} that can be built ({error}); copy it again from the run") from None


def parse_normalization(spec: Mapping[str, Any], file: Path) -> Normalization:
    """Return the normalization of a spec.

    Raises:
        UserError: the spec, from `file`, has none that can be built.
    """
    try:
        return Normalization(**spec["normalization"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} describes no normalization ({error}); copy it again from the run") from None


def update_names(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with today's names in place of those of version 0.1.0."""
    renamed, arguments = RENAMED_ARGUMENTS.get(str(spec.get("network"))), spec.get("arguments")
    if renamed is None or not isinstance(arguments, Mapping):
        return dict(spec)
    updated = dict(arguments)
    for old, new in renamed.items():
        if old in updated and new not in updated:
            features = updated.pop(old) or {}
            updated[new] = {RENAMED_FEATURES.get(name, name): path for name, path in features.items()}
    return {**spec, "arguments": updated}
