"""Reading state dicts from files: nothing that is read is executed, and nothing loads halfway.

This is the only module that opens weights from others. Weights so small that their products are denormal numbers, which long
training with weight decay leaves in dead filters, are set to zero on reading and writing: they change no logit and slow a CPU
down up to 11 times.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segkd.errors import UserError

log = logging.getLogger(__name__)

DENORMAL_THRESHOLD = 1e-20
"""Weights below this are zeroed: float32 is denormal below 1.2e-38, and a product of two factors gets there sooner."""

StateDict = dict[str, Tensor]

# Keys under which training checkpoints hold the state dict, the likeliest first, and how deep.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network", "student", "module")
_MAX_DEPTH = 3
_SHARED_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile
_COUNTERS = ("total_ops", "total_params")  # that thop's profiler leaves in a network


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
    return _strip_wrappers(_unwrap(content, path), path, is_own=is_training_state(content))


def safe_load(path: Path) -> Any:
    """Load tensors and plain values onto the CPU; the project's only call of `torch.load`.

    Raises:
        UserError: the file is damaged, no checkpoint, or holds objects whose loading would run code.
    """
    try:
        _check_archive(path)
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


def is_training_state(content: Any) -> bool:
    """Return whether the content of a file is a training checkpoint of segkd."""
    return (
        isinstance(content, Mapping)
        and content.keys() >= {"student", "state_dict"}
        and isinstance(content["student"], Mapping)
        and "network" in content["student"]
    )


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
        UserError: keys are missing, unknown or of another shape, or weights are not finite; the message counts them.
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
            f"{path} holds no {name or type(network).__name__}: {'; '.join(parts)}. Choose the model that it was saved from"
        )
    check_finite(state, path)
    network.load_state_dict(dict(state))


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights and running statistics are numbers.

    Raises:
        UserError: some are NaN or infinite; the message counts them.
    """
    if count := count_not_finite(state):
        total = sum(tensor.numel() for tensor in state.values())
        raise UserError(
            f"{path} holds {count:,} weights that are not finite, of {total:,}; it was saved after a training had diverged. "
            "Take an earlier checkpoint, or train again with a lower learning rate"
        )


def count_not_finite(state: Mapping[str, Tensor]) -> int:
    """Return how many weights and running statistics are NaN or infinite."""
    floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
    return sum(tensor.numel() - int(tensor.isfinite().sum()) for tensor in floating)


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


def describe_names(names: Sequence[str]) -> str:
    """Return "'a' is", or "'a' and 2 more are"."""
    return f"'{names[0]}' is" if len(names) == 1 else f"'{names[0]}' and {len(names) - 1} more are"


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


def _check_archive(path: Path) -> None:
    """Check the checksums of PyTorch's archive, which PyTorch does not; files of the older format have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (record := archive.testzip()) is not None:
                raise zipfile.BadZipFile(record)


def _unwrap(content: object, path: Path) -> Mapping[str, Tensor]:
    """Return the state dict in the content of a file, and say which others it holds."""
    for _ in range(_MAX_DEPTH):
        if _is_state_dict(content) or not isinstance(content, Mapping):
            break
        inner = {str(key): value for key, value in content.items() if _holds_state_dict(value)}
        known = [name for name in _WRAPPERS if name in inner]
        if len(inner) > 1 and not known:
            raise UserError(
                f"{path} holds several state dicts ({', '.join(inner)}); save one of them in a file of its own"
            )
        if not inner:
            break
        name = (known or [*inner])[0]
        if others := [other for other in inner if other != name]:
            log.info("%s: the weights under '%s' are taken; %s left out", path, name, describe_names(others))
        content = inner[name]
    if _is_state_dict(content):
        return content
    raise UserError(
        f"{path} holds no state dict (names → tensors); export one with torch.save(network.state_dict(), FILE)"
    )


def _holds_state_dict(value: object) -> bool:
    return _is_state_dict(value) or (isinstance(value, Mapping) and any(map(_is_state_dict, value.values())))


def _strip_wrappers(state: Mapping[str, Tensor], path: Path, is_own: bool) -> StateDict:
    """Return the student's weights of a training checkpoint, without prefixes that all keys share and without counters."""
    if any(key.startswith("student.") for key in state):
        rest = [key for key in state if not key.startswith("student.")]
        if rest and not is_own:
            log.info("%s: the weights under 'student.' are taken; %s left out", path, describe_names(rest))
        state = {key.removeprefix("student."): value for key, value in state.items() if key.startswith("student.")}
    while prefix := next((p for p in _SHARED_PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    counters = [key for key in state if key.rpartition(".")[2] in _COUNTERS]
    if counters:
        log.info("%s: %s left out, which a profiler added", path, describe_names(counters))
    return {key: value for key, value in state.items() if key not in counters}
