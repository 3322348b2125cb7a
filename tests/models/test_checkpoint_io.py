"""Reading state dicts: nothing is executed, nothing loads halfway, and errors say what is wrong."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segkd.errors import UserError
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import load_state_dict_strict, read_state_dict, state_hash
from segkd.models.espnet import ESPNetC

NORMALIZATION = Normalization((110, 100, 90), (55, 50, 45))


def build_network() -> ESPNetC:
    return ESPNetC(11, NORMALIZATION, p=1, q=1)


class Executes:
    """An object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def save_malicious(path: Path, legacy: bool) -> None:
    content = {"a": torch.zeros(3), "b": Executes(path.parent / "executed")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def save_truncated(path: Path) -> None:
    torch.save(build_network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_with_flipped_header(path: Path) -> None:
    save_file(build_network().state_dict(), path)
    content = bytearray(path.read_bytes())
    content[10] ^= 255
    path.write_bytes(content)


def save_too_short(path: Path) -> None:
    save_file(build_network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-4])


def save_unrelated_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.txt", "sun")


NOT_A_CHECKPOINT = "is not a checkpoint .* copy it again"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40)
BAD_FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("a.pth", lambda path: None, "no checkpoint at .*; give the path of a file"),
    "a folder": ("a.pth", Path.mkdir, "no checkpoint at .*; give the path of a file"),
    "empty": ("a.pth", Path.touch, r"is empty \(0 bytes\); fetch or copy it again"),
    "text": ("a.pth", lambda path: path.write_text("GLOBAL news\n"), NOT_A_CHECKPOINT),
    "half a pickle": ("a.pth", lambda path: path.write_bytes(b"\x80\2."), NOT_A_CHECKPOINT),
    "an image": ("a.pth", lambda path: path.write_bytes(PNG), NOT_A_CHECKPOINT),
    "damaged zip": ("a.pth", lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), NOT_A_CHECKPOINT),
    "unrelated zip": ("a.pth", save_unrelated_zip, NOT_A_CHECKPOINT),
    "truncated": ("a.pth", save_truncated, NOT_A_CHECKPOINT),
    "newer pickle": (
        "a.pth",
        lambda path: path.write_bytes(pickle.dumps({"a": torch.zeros(1)}, 4)),
        "would run code; refused",
    ),
    "a number": ("a.pth", lambda path: torch.save(3, path), r"no state dict \(names → tensors\); export one with"),
    "empty dict": ("a.pth", lambda path: torch.save({}, path), "no state dict"),
    "integer keys": ("a.pth", lambda path: torch.save({0: torch.zeros(1)}, path), "no state dict"),
    "with an epoch": ("a.pth", lambda path: torch.save({"a": torch.zeros(1), "epoch": 3}, path), "no state dict"),
    "code": ("a.pth", lambda path: save_malicious(path, legacy=False), "would run code; refused. Save the bare state"),
    "legacy code": ("a.pth", lambda path: save_malicious(path, legacy=True), "would run code; refused"),
    "bare code": (
        "a.pth",
        lambda path: path.write_bytes(pickle.dumps(Executes(path.parent / "executed"), 0)),
        "run code",
    ),
    "a module": ("a.pth", lambda path: torch.save(nn.Linear(2, 2), path), "would run code; refused"),
    "options": ("a.pth", lambda path: torch.save({"a": argparse.Namespace(b=1)}, path), "would run code; refused"),
    "not safetensors": ("a.safetensors", lambda path: path.write_text("hello"), "not a readable safetensors file"),
    "flipped": ("a.safetensors", save_with_flipped_header, "not a readable safetensors file .* copy it again"),
    "too short": ("a.safetensors", save_too_short, "not a readable safetensors file .* copy it again"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    file, write, message = BAD_FILES[name]
    write(tmp_path / file)
    with (
        warnings.catch_warnings(record=True, action="always") as recorded,
        pytest.raises(UserError, match=message) as error,
    ):
        read_state_dict(tmp_path / file)
    assert not recorded
    assert str(tmp_path / file) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_malicious_files_would_run_code_if_loaded_without_care(tmp_path: Path) -> None:
    """Negative control of the files above."""
    for legacy in (False, True):
        save_malicious(tmp_path / "a.pth", legacy)
        torch.load(tmp_path / "a.pth", weights_only=False)
        (tmp_path / "executed").unlink()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "student.", "student.module."])
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappers_are_stripped(wrapper: str | None, prefix: str, legacy: bool, tmp_path: Path) -> None:
    state = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict()
    content: dict[str, Any] = {
        prefix + key: nn.Parameter(value, value.is_floating_point()) for key, value in state.items()
    }
    if prefix.startswith("student"):
        content["adversary.weight"] = torch.zeros(1)
    if wrapper:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    loaded = read_state_dict(tmp_path / "a.pth")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_strict_loading_changes_all_weights_or_none(tmp_path: Path) -> None:
    network, path = build_network(), tmp_path / "a.pth"
    state = {key: torch.full_like(value, 7) for key, value in network.state_dict().items()}
    before = state_hash(network)
    with pytest.raises(UserError):
        load_state_dict_strict(network, {**state, "classifier.weight": torch.zeros(1)}, path)
    assert state_hash(network) == before
    load_state_dict_strict(network, state, path)
    assert state_hash(network) != before


def test_state_hash_changes_with_every_bit() -> None:
    network = build_network()
    hashes = {state_hash(network)}
    for key, tensor in network.state_dict().items():
        raw = tensor.view(-1).view(torch.uint8)
        for byte, bit in ((0, 1), (len(raw) - 1, 128)):
            raw[byte] ^= bit
            hashes.add(state_hash(network))
            raw[byte] ^= bit
            assert state_hash(network) in hashes, key
    assert len(hashes) == 1 + 2 * len(network.state_dict())
