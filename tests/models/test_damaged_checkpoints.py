"""Damage of files with weights: a sentence, or nothing has changed; never a traceback, and never another network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from segkd.errors import UserError
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import state_hash
from segkd.models.espnet import ESPNetC
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, read_student_metadata, read_weights, save_student, to_spec

NORMALIZATION = Normalization((110, 100, 90), (55, 50, 45))
METADATA = {"classes": [*"abcdefghijk"], "colors": [[i, 2 * i, 9] for i in range(11)], "dataset": "läufer"}


def build_network() -> ESPNetC:
    torch.manual_seed(0)
    return ESPNetC(11, NORMALIZATION, p=1, q=1)


def save_run(folder: Path) -> None:
    save_student(build_network(), folder, METADATA)


def save_checkpoint(folder: Path) -> None:
    network = build_network()
    state = {f"student.{key}": tensor for key, tensor in network.state_dict().items()}
    spec = {**to_spec(network), "classes": METADATA["classes"]}
    torch.save({"segkd": "1", "student": spec, "state_dict": state}, folder / "last.ckpt")


def save_bare(folder: Path) -> None:
    torch.save(build_network().state_dict(), folder / "bare.pth")


def describe_run(folder: Path) -> object:
    metadata, network = read_student_metadata(folder), load_student(folder)
    return [metadata[key] for key in METADATA], network.classes, network.normalization.to_dict(), state_hash(network)


def describe_file(path: Path) -> object:
    network, _ = load_network(ESPNetC, {"p": 1, "q": 1}, path, 11, NORMALIZATION)
    return network.classes, network.normalization.to_dict(), state_hash(network)


def describe_or_refuse(describe: Callable[[Path], object], folder: Path) -> object:
    """Return what a folder holds, or the sentence that refuses it."""
    try:
        return describe(folder)
    except UserError as error:
        return str(error)


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "student.safetensors": (save_run, describe_run),
    "student.yaml": (save_run, describe_run),
    "last.ckpt": (save_checkpoint, lambda folder: describe_file(folder / "last.ckpt")),
    "bare.pth": (save_bare, lambda folder: describe_file(folder / "bare.pth")),
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_told_or_changes_nothing(name: str, tmp_path: Path, data: st.DataObject) -> None:
    save, describe = FILES[name]
    if not (tmp_path / "original").exists():
        save(tmp_path)
        (tmp_path / "original").write_bytes((tmp_path / name).read_bytes())
    content = (tmp_path / "original").read_bytes()
    # Headers are a small part of a file, so that half of the examples are in its first or last kilobytes.
    position = data.draw(
        st.one_of(
            st.integers(0, len(content) - 1),
            st.integers(0, min(3000, len(content) - 1)),
            st.integers(max(0, len(content) - 3000), len(content) - 1),
        )
    )
    if data.draw(st.booleans()):
        damaged = content[:position]
    else:
        damaged = bytearray(content)
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / name).write_bytes(damaged)
    result = describe_or_refuse(describe, tmp_path)
    if isinstance(result, str):
        assert "\n" not in result
    else:
        (tmp_path / name).write_bytes(content)
        assert result == describe(tmp_path)


def test_replaced_weights_are_told(tmp_path: Path) -> None:
    """Unlike in files without the hash, as version 0.1.0 wrote them."""
    save_run(tmp_path)
    state = load_file(tmp_path / "student.safetensors")
    state["classifier.weight"] *= 2
    save_file(state, tmp_path / "student.safetensors")
    with pytest.raises(UserError, match=r"differs from the sha256 in student\.yaml and is damaged or was replaced"):
        load_student(tmp_path)
    entries = yaml.safe_load((tmp_path / "student.yaml").read_text())
    entries["classes"][0] = "z"
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(entries))
    with pytest.raises(UserError, match=r"student\.yaml differs from its sha256 .* or delete its entry 'sha256'"):
        load_student(tmp_path)
    del entries["sha256"]
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(entries))
    student = load_student(tmp_path)
    assert student.classes is not None
    assert student.classes[0] == "z"
    assert torch.equal(student.state_dict()["classifier.weight"], state["classifier.weight"])


def test_damage_goes_unnoticed_without_checksums(tmp_path: Path) -> None:
    """Negative control: PyTorch and safetensors compare none."""
    save_bare(tmp_path)
    save_run(tmp_path)
    weights = build_network().state_dict()["classifier.weight"].numpy().tobytes()
    for name in ("bare.pth", "student.safetensors"):
        content = bytearray((tmp_path / name).read_bytes())
        content[content.index(weights) + 1] ^= 1
        (tmp_path / name).write_bytes(content)
    assert torch.load(tmp_path / "bare.pth")["classifier.weight"].numpy().tobytes() != weights
    assert load_file(tmp_path / "student.safetensors")["classifier.weight"].numpy().tobytes() != weights
    assert read_weights(tmp_path / "student.safetensors", None)
    with pytest.raises(UserError, match="damaged"):
        load_network(ESPNetC, {"p": 1, "q": 1}, tmp_path / "bare.pth", 11, NORMALIZATION)
    with pytest.raises(UserError, match="damaged"):
        load_student(tmp_path)


def test_student_that_diverged_is_not_saved(tmp_path: Path) -> None:
    network = build_network()
    with torch.no_grad():
        network.get_parameter("classifier.weight")[0, :3] = torch.nan
    with pytest.raises(UserError, match="3 of the student's weights are not finite: its training has diverged"):
        save_student(network, tmp_path, {})
    assert not any(tmp_path.iterdir())
