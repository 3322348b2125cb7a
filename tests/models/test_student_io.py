"""Saving and loading students: `student.safetensors` and `student.yaml`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import state_hash
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import from_spec, load_student, read_metadata, save_student, to_spec

pytestmark = pytest.mark.usefixtures("third_party_plugin")

NORMALIZATION = Normalization((110, 100, 90), (55, 50, 45))


@pytest.fixture
def student(tmp_path: Path) -> ESPNetC:
    """A student that is saved in `tmp_path`."""
    network = ESPNetC(11, NORMALIZATION, p=1, q=1)
    save_student(network, tmp_path, {})
    return network


def change_yaml(path: Path, changes: dict[str, Any]) -> None:
    """Change entries on purpose: without the hashes."""
    entries = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "sha256"}
    path.write_text(yaml.safe_dump({**entries, **changes}))


@pytest.mark.usefixtures("student")
@pytest.mark.parametrize(
    ("changes", "message"),
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
        ({"normalization": {"mean": [1, 2, 3]}}, "describes no normalization .*std"),
        ({"normalization": {"mean": [1], "std": [1, 1, 1]}}, "describes no normalization"),
        ({"num_classes": 12}, "holds no ESPNetC: 1 of .* another shape"),
    ],
    ids=str,
)
def test_yaml_with_a_wrong_entry_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    change_yaml(tmp_path / "student.yaml", changes)
    with pytest.raises(UserError, match=message):
        load_student(tmp_path)


@pytest.mark.usefixtures("student")
@pytest.mark.parametrize(
    "content", [b"", b"- 1", b"a: [", b"\xff\xfe\0\1", b"network: !!python/name:os.system", b"num_classes: 3"]
)
def test_damaged_yaml_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "student.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"does not describe a network; copy it again from the run, beside student\.safetensors"
    ):
        load_student(tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no student in .*: student\.yaml is missing; give the folder of a finished run"
    ):
        load_student(tmp_path)
    save_student(ESPNetC(11, NORMALIZATION, p=1, q=1), tmp_path, {})
    (tmp_path / "student.safetensors").unlink()
    with pytest.raises(UserError, match=r"no checkpoint at .*student\.safetensors"):
        load_student(tmp_path)


def test_files_follow_the_umask_and_are_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ESPNetC(11, NORMALIZATION, p=1, q=1)
    umask = os.umask(0o027)
    try:
        save_student(network, tmp_path, {})
    finally:
        os.umask(umask)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["student.safetensors", "student.yaml"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}

    before = [file.read_bytes() for file in files]

    def raise_disk_full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", raise_disk_full)
    with pytest.raises(OSError, match="No space"):
        save_student(network, tmp_path, {})
    assert [file.read_bytes() for file in files] == before


def test_adapter_of_version_0_1_0_loads(tmp_path: Path) -> None:
    """Its features were saved as `taps`, in which the feature `kd_logits` was called `scores`."""
    network = Adapter(
        11,
        NORMALIZATION,
        network="tests.helpers.third_party_networks.ThirdPartyNetwork",
        arguments={"output": "quarter size"},
        features={"encoder": "backbone", "kd_logits": "head"},
    )
    save_student(network, tmp_path, {})
    spec = yaml.safe_load((tmp_path / "student.yaml").read_text())
    arguments = {key: value for key, value in spec["arguments"].items() if key != "features"}
    change_yaml(
        tmp_path / "student.yaml", {"arguments": {**arguments, "taps": {"encoder": "backbone", "scores": "head"}}}
    )
    loaded = load_student(tmp_path)
    assert loaded.features == network.features
    assert to_spec(loaded) == to_spec(network)
    assert state_hash(loaded) == state_hash(network)

    old_spec = yaml.safe_load((tmp_path / "student.yaml").read_text())
    torch.save({"student": old_spec, "state_dict": {}}, tmp_path / "last.ckpt")
    assert read_metadata(tmp_path / "last.ckpt") == to_spec(network)
    with pytest.raises(UserError, match="taps"):
        from_spec(old_spec, tmp_path / "student.safetensors")
