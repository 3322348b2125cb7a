"""Reading state dicts from files: nothing that is read is executed, and nothing loads halfway.

This is the only module that opens weights from others. Weights so small that their products are denormal numbers, which long
training with weight decay leaves in dead filters, are set to zero on reading and writing: they change no logit and slow a CPU
down up to 11 times.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segkd.errors import UserError

DENORMAL_THRESHOLD = 1e-20
"""Weights below this are zeroed: float32 is denormal below 1.2e-38, and a product of two factors gets there sooner."""

StateDict = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training checkpoints hold the state dict


def read_state_dict(path: Path) -> StateDict:
    """Return the state dict in a .safetensors file, a PyTorch file, or a training checkpoint of segkd (the student's).

    Raises:
        UserError: the file is missing, empty, damaged, no checkpoint, or a pickle of more than tensors and plain values.
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
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not _is_state_dict(content):
        raise UserError(
            f"{path} holds no state dict (names → tensors); export one with torch.save(network.state_dict(), FILE)"
        )
    return _strip_wrappers(content)


def safe_load(path: Path) -> Any:
    """Load tensors and plain values onto the CPU; the project's only call of `torch.load`.

    Raises:
        UserError: the file is damaged, no checkpoint, or holds objects whose loading would run code.
    """
    try:
        # PyTorch warns about unusual files; the errors below are clearer.
        with warnings.catch_warnings(action="ignore"):
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
    network: nn.Module, state: Mapping[str, Tensor], path: Path, name: str | None = None
) -> None:
    """Load every weight or none.

    Args:
        network: the network to load into.
        state: its weights.
        path: the file that they come from, for the error.
        name: what the error calls the network; its class if None.

    Raises:
        UserError: keys are missing, unknown or of another shape; the message counts them and names the first.
    """
    expected = network.state_dict()
    mismatches = {
        "are missing": [key for key in expected if key not in state],
        "are not this network's": [key for key in state if key not in expected],
        "have another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ],
    }
    parts = [
        f"{len(keys)} of {len(expected)} keys {kind} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for kind, keys in mismatches.items()
        if keys
    ]
    if parts:
        raise UserError(
            f"{path} is not of a {name or type(network).__name__}: {'; '.join(parts)}. Choose the model that it was saved from"
        )
    network.load_state_dict(dict(state))


@torch.no_grad()
def flush_denormals(state: StateDict) -> int:
    """Zero weights below `DENORMAL_THRESHOLD` in place; return how many were not zero before."""
    count = 0
    for tensor in state.values():
        if tensor.is_floating_point():
            tiny = (tensor.abs() < DENORMAL_THRESHOLD) & (tensor != 0)
            count += int(tiny.sum())
            tensor[tiny] = 0
    return count


def describe_zeroed(count: int) -> str:
    """Return ", N denormal weights zeroed"; nothing where none was."""
    return f", {count} denormal weights zeroed" if count else ""


def state_hash(network: nn.Module) -> str:
    """Return a SHA-256 of all weights and running statistics; equal hashes mean that nothing changed."""
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _is_bare_pickle(path: Path) -> bool:
    """Return whether pickle itself wrote the file: PyTorch writes archives or, formerly, protocol 2."""
    with path.open("rb") as file:
        opcode, protocol = file.read(1), file.read(1)
    return opcode == pickle.PROTO and protocol > b"\2"


def _strip_wrappers(state: Mapping[str, Tensor]) -> StateDict:
    """Remove DataParallel's `module.` prefix; of a training checkpoint, keep only the student's weights."""
    if any(key.startswith("student.") for key in state):
        state = {key.removeprefix("student."): value for key, value in state.items() if key.startswith("student.")}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)
