"""Weights: what is read is never executed, nothing loads halfway, and what is written stands whole."""

from __future__ import annotations

import argparse
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import flush_denormals, load_state_dict_strict, read_state_dict, state_hash
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, save_student

STATISTICS = Normalization((110, 100, 90), (55, 50, 45))
TINY = {"p": 1, "q": 1}


def network(kind: type[SegmentationModel] = ESPNetC, classes: int = 11) -> SegmentationModel:
    return kind(classes, STATISTICS, **TINY)


def restored(path: Path, kind: type[SegmentationModel] = ESPNetC, classes: int = 11) -> tuple[SegmentationModel, str]:
    return load_network(kind, TINY, path, classes, STATISTICS)


class Runs:
    """Unpickled, it leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def malicious(path: Path, legacy: bool) -> None:
    content = {"a": torch.zeros(3), "b": Runs(path.parent / "executed")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def truncated(path: Path) -> None:
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped_header(path: Path) -> None:
    save_file(network().state_dict(), path)
    content = bytearray(path.read_bytes())
    content[10] ^= 255
    path.write_bytes(content)


def short(path: Path) -> None:
    save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-4])


def zip_of_something(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.txt", "sun")


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40)
BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("a.pth", lambda path: None, "no checkpoint at .*; give the path of a file"),
    "a folder": ("a.pth", Path.mkdir, "no checkpoint at .*; give the path of a file"),
    "empty": ("a.pth", Path.touch, r"is empty \(0 bytes\); fetch or copy it again"),
    "text": ("a.pth", lambda path: path.write_text("GLOBAL news\n"), "is not a checkpoint .* copy it again"),
    "half a pickle": ("a.pth", lambda path: path.write_bytes(b"\x80\2."), "is not a checkpoint .* copy it again"),
    "an image": ("a.pth", lambda path: path.write_bytes(PNG), "is not a checkpoint .* copy it again"),
    "torn zip": ("a.pth", lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), "is not a checkpoint .* copy it again"),
    "another zip": ("a.pth", zip_of_something, "is not a checkpoint .* copy it again"),
    "truncated": ("a.pth", truncated, "is not a checkpoint .* copy it again"),
    "newer pickle": (
        "a.pth",
        lambda path: path.write_bytes(pickle.dumps({"a": torch.zeros(1)}, 4)),
        "would run code; refused",
    ),
    "a number": ("a.pth", lambda path: torch.save(3, path), r"no state dict \(names → tensors\); export one with"),
    "nothing": ("a.pth", lambda path: torch.save({}, path), "no state dict"),
    "numbered": ("a.pth", lambda path: torch.save({0: torch.zeros(1)}, path), "no state dict"),
    "with an epoch": ("a.pth", lambda path: torch.save({"a": torch.zeros(1), "epoch": 3}, path), "no state dict"),
    "code": ("a.pth", lambda path: malicious(path, legacy=False), "would run code; refused. Save the bare state dict"),
    "old code": ("a.pth", lambda path: malicious(path, legacy=True), "would run code; refused"),
    "bare code": ("a.pth", lambda path: path.write_bytes(pickle.dumps(Runs(path.parent / "executed"), 0)), "run code"),
    "a module": ("a.pth", lambda path: torch.save(nn.Linear(2, 2), path), "would run code; refused"),
    "options": ("a.pth", lambda path: torch.save({"a": argparse.Namespace(b=1)}, path), "would run code; refused"),
    "not safetensors": ("a.safetensors", lambda path: path.write_text("hello"), "not a readable safetensors file"),
    "flipped": ("a.safetensors", flipped_header, "not a readable safetensors file .* copy it again"),
    "short": ("a.safetensors", short, "not a readable safetensors file .* copy it again"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    file, make, said = BAD[name]
    make(tmp_path / file)
    with (
        warnings.catch_warnings(record=True, action="always") as remarks,
        pytest.raises(UserError, match=said) as refusal,
    ):
        read_state_dict(tmp_path / file)
    assert not remarks
    assert str(tmp_path / file) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "executed").exists()


def test_the_trap_would_spring(tmp_path: Path) -> None:
    """What the files called code do where they are loaded without care."""
    for legacy in (False, True):
        malicious(tmp_path / "a.pth", legacy)
        torch.load(tmp_path / "a.pth", weights_only=False)
        (tmp_path / "executed").unlink()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "student.", "student.module."])
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappings_are_taken_off(wrapper: str | None, prefix: str, legacy: bool, tmp_path: Path) -> None:
    state = network().state_dict()
    content: dict[str, Any] = {
        prefix + key: nn.Parameter(value, value.is_floating_point()) for key, value in state.items()
    }
    if prefix.startswith("student"):
        content["adversary.weight"] = torch.zeros(1)
    if wrapper:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    found, line = restored(tmp_path / "a.pth")
    assert state_hash(found) == state_hash(_with(network(), state))
    assert line == "a.pth: a ESPNetC (p=1, q=1, width=1), 11 outputs, 0 denormal weights zeroed"


def _with(model: SegmentationModel, state: dict[str, torch.Tensor]) -> SegmentationModel:
    model.load_state_dict(state)
    return model


def test_another_network_s_weights_say_which_keys(tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save({**state, "stranger": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier")}, tmp_path / "less.pth")
    torch.save(network(classes=19).state_dict(), tmp_path / "other.pth")
    total = len(state)
    for file, said in {
        "more.pth": rf"1 of {total} keys are not this network's \(stranger\)",
        "less.pth": rf"1 of {total} keys are missing \(classifier\.weight\)",
        "other.pth": rf"1 of {total} keys have another shape \(classifier\.weight \(19, 256, 1, 1\) for \(11, 256, 1, 1\)\)",
    }.items():
        with pytest.raises(UserError, match=f"is not of a ESPNetC: {said}. Choose the model that it was saved from"):
            restored(tmp_path / file)
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(
        UserError, match=rf"{total} of {total} keys are missing \(.*, …\); 2 of {total} keys are not this"
    ):
        restored(tmp_path / "foreign.pth")


def test_nothing_loads_halfway(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "a.pth"
    state = {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}
    before = state_hash(model)
    with pytest.raises(UserError):
        load_state_dict_strict(model, {**state, "classifier.weight": torch.zeros(1)}, path)
    assert state_hash(model) == before
    load_state_dict_strict(model, state, path)
    assert state_hash(model) != before


def test_a_student_says_itself_how_it_is_built(tmp_path: Path) -> None:
    """Beside its yaml, a student needs no argument, keeps its statistics, and is refused as another network's."""
    student = ESPNetC(11, Normalization((1, 2, 3), (4, 5, 6), bgr=True), p=2, q=3)
    save_student(student, tmp_path, {})
    found, line = restored(tmp_path / "student.safetensors")
    assert line.startswith("student.safetensors: segkd's ESPNetC (p=2, q=3, width=1)")
    assert found.normalization.to_dict() == student.normalization.to_dict()
    with pytest.raises(UserError, match="is of ESPNetC, not of ESPNet; choose the model it was saved from"):
        restored(tmp_path / "student.safetensors", ESPNet)
    with pytest.raises(UserError, match="scores 11 classes, the data set has 19; take weights of this data set"):
        restored(tmp_path / "student.safetensors", classes=19)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": "os.system"}, "names 'os.system', which is no network of segkd"),
        ({"network": "segkd.models.checkpoint_io.safe_load"}, "which is no network of segkd"),
        ({"network": "segkd.models.base.Normalization"}, "which is no network of segkd"),
        ({"network": "segkd.models.nowhere.Net"}, "which is no network of segkd"),
        ({"network": None}, "which is no network of segkd"),
        ({"arguments": {"p": 1, "q": 1, "stages": 4}}, "describes no ESPNetC that can be built .*stages"),
        ({"arguments": None}, "describes no ESPNetC that can be built"),
        ({"arguments": {"p": "many"}}, "describes no ESPNetC that can be built"),
        ({"num_classes": -1}, "describes no ESPNetC that can be built"),
        ({"normalization": {"mean": [1, 2, 3]}}, "describes no normalisation .*std"),
        ({"normalization": {"mean": [1], "std": [1, 1, 1]}}, "describes no normalisation"),
        ({"num_classes": 12}, "is not of a ESPNetC: 1 of .* another shape"),
    ],
    ids=str,
)
def test_a_student_s_yaml_that_says_something_else(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_student(network(), tmp_path, {})
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        load_student(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"- 1", b"a: [", b"\xff\xfe\0\1", b"network: !!python/name:os.system", b"num_classes: 3"]
)
def test_a_student_s_yaml_that_is_none(content: bytes, tmp_path: Path) -> None:
    save_student(network(), tmp_path, {})
    (tmp_path / "student.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"does not describe a network; copy it again from the run, beside student\.safetensors"
    ):
        load_student(tmp_path)


def test_half_a_student(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no student in .*: student\.yaml is missing; give the folder of a finished run"
    ):
        load_student(tmp_path)
    save_student(network(), tmp_path, {})
    (tmp_path / "student.safetensors").unlink()
    with pytest.raises(UserError, match=r"no checkpoint at .*student\.safetensors"):
        load_student(tmp_path)


def test_the_files_follow_the_umask_and_stand_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        save_student(network(), tmp_path, {})
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["student.safetensors", "student.yaml"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}

    earlier = [file.read_bytes() for file in files]

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_student(network(), tmp_path, {})
    assert [file.read_bytes() for file in files] == earlier


def test_denormal_weights_are_zeroed_on_the_way_in_and_out_and_said(tmp_path: Path) -> None:
    model, probe = network().eval(), torch.rand(1, 3, 64, 64) * 255
    plain = model(probe).logits
    with torch.no_grad():
        dead = model.get_parameter("encoder.down3.reduce.weight")
        dead[:2] = 1e-39
        dead[0, 0] = 1e-25
        dead[1, 1] = 0
        dead[2, 0] = -1e-19  # small, and kept
    count = dead[:2].numel() - dead[1, 1].numel()
    dirty = model(probe).logits
    torch.save(model.state_dict(), tmp_path / "a.pth")
    cleaned, line = restored(tmp_path / "a.pth")
    assert line.endswith(f"11 outputs, {count} denormal weights zeroed")
    assert save_student(model, tmp_path, {}) == count
    assert torch.count_nonzero(model.get_parameter("encoder.down3.reduce.weight")[:2]) == count, "of the copy alone"
    for clean in (cleaned.eval(), load_student(tmp_path)):
        kept = clean.get_parameter("encoder.down3.reduce.weight")
        assert not kept[:2].any()
        assert torch.equal(kept[2:], dead[2:])
        assert torch.equal(clean(probe).logits, dirty)
        assert not torch.equal(clean(probe).logits, plain)
    assert flush_denormals(cleaned.state_dict()) == 0


@pytest.mark.published
def test_published_weights_hold_denormals_that_change_nothing(published_files: Path) -> None:
    path = published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth"
    found, line = restored(path, ESPNet)
    assert line.endswith("12 outputs, 12031 denormal weights zeroed")
    probe = torch.rand(1, 3, 64, 96) * 255
    clean = found.eval()(probe).logits
    origin = ESPNet.match_checkpoint(read_state_dict(path))
    assert origin is not None
    found.load_state_dict(origin.state)
    assert torch.equal(found(probe).logits, clean)


def test_fingerprint_sees_every_bit() -> None:
    model = network()
    seen = {state_hash(model)}
    for key, tensor in model.state_dict().items():
        raw = tensor.view(-1).view(torch.uint8)
        for byte, bit in ((0, 1), (len(raw) - 1, 128)):
            raw[byte] ^= bit
            seen.add(state_hash(model))
            raw[byte] ^= bit
            assert state_hash(model) in seen, key
    assert len(seen) == 1 + 2 * len(model.state_dict())
