"""Reading and writing weights: nothing that is read is ever executed, and nothing loads halfway; foreign weights are opened nowhere else.

A student is exchanged as two files, `student.safetensors` and `student.yaml`; foreign networks come as PyTorch state
dicts. Weights so small that their products are denormal numbers, which long training with weight decay leaves in dead filters, are
set to zero on the way in and out: they change no score and slow a CPU up to 11 times.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from segkd import __version__
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel

DENORMAL_THRESHOLD = 1e-20
"""Weights below this are zeroed: float32 is denormal below 1.2e-38, and a product of two factors gets there sooner."""

StateDict = dict[str, Tensor]


def load_network(
    network: type[SegmentationModel],
    arguments: Mapping[str, Any],
    checkpoint: Path,
    num_classes: int,
    default: Normalization,
    same_classes: bool = True,
) -> tuple[SegmentationModel, str]:
    """A network with the weights of `checkpoint`, and one line on what was found there.

    The file says how the network must be built where it is one of ours or of the family's authors; `arguments` say it
    otherwise. Loading is strict. With `same_classes`, its classes must be the `num_classes` of the data set.

    Raises:
        UserError: the file is missing, damaged, would run code, or holds another network or other classes.
    """
    state = read_state_dict(checkpoint)
    zeroed = flush_denormals(state)
    facts = read_metadata(checkpoint)
    if facts is not None:
        model, whose = _from_spec(facts, checkpoint), "segkd's"
        if not isinstance(model, network):
            raise UserError(
                f"{checkpoint} is of {type(model).__name__}, not of {network.__name__}; choose the model it was saved from"
            )
    elif origin := network.match_checkpoint(state):
        model = network(**{**arguments, **origin.arguments}, normalization=origin.normalization)
        state, whose = origin.state, f"{origin.author}'s"
    else:
        model, whose = network(num_classes=num_classes, normalization=default, **arguments), "a"
        state = model.convert_state_dict(state)
    load_state_dict_strict(model, state, checkpoint)
    fitting = (num_classes, num_classes + 1)  # one more: void was trained as the last class
    if same_classes and model.num_classes not in fitting:
        raise UserError(
            f"{checkpoint} scores {model.num_classes} classes, the data set has {num_classes}; take weights of this data set"
        )
    found = ", ".join(f"{k}={v}" for k, v in model.arguments.items())
    line = f"{checkpoint.name}: {whose} {network.__name__} ({found}), {model.num_classes} outputs, {zeroed} denormal weights zeroed"
    return model, line


def read_state_dict(path: Path) -> StateDict:
    """The state dict in a .safetensors file, a PyTorch file, or the student of one of our training checkpoints.

    Raises:
        UserError: missing, empty, damaged, no checkpoint, or a pickle that holds more than tensors and plain values.
    """
    if not path.is_file():
        inside = path / "student.safetensors"
        raise UserError(f"no checkpoint at {path}; give the path of a file{f', {inside}' if inside.is_file() else ''}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); fetch or copy it again")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else safe_load(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); fetch or copy it again") from None
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not _is_state(content):
        raise UserError(
            f"{path} holds no state dict (names → tensors); export one with torch.save(network.state_dict(), FILE)"
        )
    return _without_wrappers(content)


def safe_load(path: Path) -> Any:
    """`torch.load` of tensors and plain values only, onto the CPU. The project's only use of it.

    Raises:
        UserError: the file is damaged or no checkpoint, or holds objects whose loading would run code.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of PyTorch, on strange files; what we say follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises a dozen kinds on damaged files
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or _is_bare_pickle(path)):
            raise UserError(
                f"{path} holds objects whose loading would run code; refused. Save the bare state dict instead"
            ) from None
        raise UserError(
            f"{path} is not a checkpoint that PyTorch can read, or is damaged; fetch or copy it again"
        ) from None


def load_state_dict_strict(
    network: nn.Module, state: Mapping[str, Tensor], path: Path, called: str | None = None
) -> None:
    """Load every weight or none; an error calls the network by its class, or as `called` says.

    Raises:
        UserError: keys are missing, unknown or of another shape; says how many and which first.
    """
    ours = network.state_dict()
    faults = {
        "are missing": [key for key in ours if key not in state],
        "are not this network's": [key for key in state if key not in ours],
        "have another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(ours[key].shape)}"
            for key in ours
            if key in state and state[key].shape != ours[key].shape
        ],
    }
    told = [
        f"{len(keys)} of {len(ours)} keys {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in faults.items()
        if keys
    ]
    if told:
        raise UserError(
            f"{path} is not of a {called or type(network).__name__}: {'; '.join(told)}. Choose the model that it was saved from"
        )
    network.load_state_dict(dict(state))


@torch.no_grad()
def flush_denormals(state: StateDict) -> int:
    """Zero, in place, what is smaller than NEGLIGIBLE; how many were not zero before."""
    count = 0
    for tensor in state.values():
        if tensor.is_floating_point():
            tiny = (tensor.abs() < DENORMAL_THRESHOLD) & (tensor != 0)
            count += int(tiny.sum())
            tensor[tiny] = 0
    return count


def save_student(student: SegmentationModel, directory: Path, facts: Mapping[str, Any]) -> int:
    """Write `student.safetensors` and `student.yaml`; how many denormal weights were zeroed.

    `facts` go into the yaml beside what rebuilds the network.
    """
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in student.state_dict().items()}
    zeroed = flush_denormals(state)
    description = yaml.safe_dump({**to_spec(student), **facts}, sort_keys=False, allow_unicode=True)
    _write_atomically(
        {directory / "student.safetensors": save(state), directory / "student.yaml": description.encode()}
    )
    return zeroed


def to_spec(network: SegmentationModel) -> dict[str, Any]:
    """What rebuilds a network, but for its weights, as plain values."""
    return {
        "network": f"{type(network).__module__}.{type(network).__qualname__}",
        "num_classes": network.num_classes,
        "arguments": network.arguments,
        "normalization": network.normalization.facts(),
    }


def load_student(directory: str | Path) -> SegmentationModel:
    """The student of a run, in evaluation mode, from `student.safetensors` and `student.yaml`.

    Raises:
        UserError: a file is missing or damaged, or the yaml names something that is no network of segkd.
    """
    path = Path(directory) / "student.safetensors"
    facts = student_metadata(directory)
    try:
        student = _from_spec(facts, path)
        load_state_dict_strict(student, read_state_dict(path), path)
    except UserError as error:
        saved_by = str(facts.get("segkd", __version__))
        if saved_by == __version__:
            raise
        raise UserError(f"{error}; or install segkd {saved_by}, which saved it (this is {__version__})") from None
    return student.eval()


def student_metadata(directory: str | Path) -> dict[str, Any]:
    """What `student.yaml` says: how the student is built, and on which data it was trained.

    Raises:
        UserError: it is missing or damaged.
    """
    facts = read_metadata(Path(directory) / "student.safetensors")
    if facts is None:
        raise UserError(f"no student in {directory}: student.yaml is missing; give the folder of a finished run")
    return facts


def state_hash(network: nn.Module) -> str:
    """A hash of every weight and running statistic: equal before and after means that nothing moved."""
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_metadata(checkpoint: Path) -> dict[str, Any] | None:
    """What segkd wrote beside weights, or into a training checkpoint: how the network is built; None where it wrote nothing.

    Raises:
        UserError: it is damaged.
    """
    if checkpoint.suffix == ".ckpt":
        content = safe_load(checkpoint)
        described = content.get("student") if isinstance(content, Mapping) else None
        return dict(described) if isinstance(described, Mapping) else None
    path = checkpoint.with_suffix(".yaml")
    if checkpoint.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        facts = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError:
        facts = None
    if not isinstance(facts, dict) or not {"network", "num_classes", "arguments", "normalization"} <= facts.keys():
        raise UserError(f"{path} does not describe a network; copy it again from the run, beside {checkpoint.name}")
    return facts


def _from_spec(facts: Mapping[str, Any], path: Path) -> SegmentationModel:
    description = path.with_suffix(".yaml")
    module, _, name = str(facts["network"]).rpartition(".")
    try:
        network = getattr(importlib.import_module(module), name, None) if module.startswith("segkd.models.") else None
    except ImportError:
        network = None
    if not (isinstance(network, type) and issubclass(network, SegmentationModel)):
        raise UserError(
            f"{description} names '{facts['network']}', which is no network of segkd; copy it again from the run"
        )
    normalization = parse_normalization(facts, description)
    try:
        return network(num_classes=facts["num_classes"], normalization=normalization, **facts["arguments"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{description} describes no {name} that can be built ({error}); copy it again from the run"
        ) from None


def parse_normalization(facts: Mapping[str, Any], description: Path) -> Normalization:
    """What the network was trained on.

    Raises:
        UserError: the facts, from `description`, do not say it.
    """
    try:
        return Normalization(**facts["normalization"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{description} describes no normalisation ({error}); copy it again from the run") from None


def _is_state(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _is_bare_pickle(path: Path) -> bool:
    """Written by pickle itself: PyTorch saves archives or, formerly, by protocol 2."""
    with path.open("rb") as file:
        mark, protocol = file.read(1), file.read(1)
    return mark == pickle.PROTO and protocol > b"\2"


def _write_atomically(contents: Mapping[Path, bytes]) -> None:
    """Files that stand whole under their names or not at all."""
    partial = {path: path.with_name(f"{path.name}.partial") for path in contents}
    for path, content in contents.items():
        partial[path].write_bytes(content)
    for path, written in partial.items():
        written.replace(path)


def _without_wrappers(state: Mapping[str, Tensor]) -> StateDict:
    """Without DataParallel's `module.`; of a training checkpoint, the student alone."""
    if any(key.startswith("student.") for key in state):
        state = {key.removeprefix("student."): value for key, value in state.items() if key.startswith("student.")}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)
