"""An own yaml file that is wrong is named, with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from segkd.cli import launch
from segkd.config.overrides import apply_overrides
from segkd.config.schema import load_settings
from segkd.config.training import TrainSettings
from tests.helpers.commands import Result, in_process

GLOBAL = "# @package _global_\n"
GOOD = f"{GLOBAL}defaults:\n  - override /dataset: folder\nname: mine\ndataset: {{root: plain}}\ntrainer: {{max_epochs: 1}}\n"


def check_config(cfg: DictConfig) -> None:
    """Do what a training does before it opens a file."""
    apply_overrides(cfg)
    load_settings(cfg, TrainSettings)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "load_command", lambda name: check_config)
    (tmp_path / "mine/experiment").mkdir(parents=True)
    return tmp_path / "mine/experiment"


def run(name: str) -> Result:
    return in_process("train", f"experiment={name}", "dry_run=true", "--config-dir", "mine")


FAULTS: dict[str, tuple[bytes, str]] = {
    "no package": (b"name: x\n", "mine/experiment/x.yaml: its first line must be '# @package _global_'"),
    "misspelled package": (b"# @package _globl_\nname: x\n", "its first line must be '# @package _global_'"),
    "byte-order mark": (b"\xef\xbb\xbf" + GOOD.encode(), "x.yaml begins with a byte-order mark"),
    "no override": (
        f"{GLOBAL}defaults:\n  - /dataset: folder\n".encode(),
        "x.yaml: write '- override /dataset: folder' in place of '- /dataset: folder'",
    ),
    "no slash": (f"{GLOBAL}defaults:\n  - override dataset: folder\n".encode(), "write 'override /dataset' with a slash"),
    "neither": (f"{GLOBAL}defaults:\n  - dataset: folder\n".encode(), "write 'override /dataset' with a slash"),
    "misspelled group": (
        f"{GLOBAL}defaults:\n  - override /datset: folder\n".encode(),
        "there is no config group 'datset'; did you mean 'dataset'?",
    ),
    "misspelled option": (f"{GLOBAL}defaults:\n  - override /dataset: foldr\n".encode(), "did you mean 'folder'?"),
    "tab": (f"{GLOBAL}data:\n\tflip: 1\n".encode(), "x.yaml, line 3, column 1: not valid YAML (found character '\\t'"),
    "duplicate": (f"{GLOBAL}name: a\nname: b\n".encode(), "x.yaml, line 3, column 1: not valid YAML (found duplicate key"),
    "Latin-1": (f"{GLOBAL}name: j\xfcr\n".encode("latin-1"), "mine/experiment/x.yaml cannot be read"),
    "recursive": (f"{GLOBAL}name: &x [*x]\n".encode(), "mine/experiment/x.yaml cannot be read"),
    "number for keys": (f"{GLOBAL}data: 5\n".encode(), "data=5: it has keys of its own, as in data.batch_size=VALUE"),
    "number for losses": (f"{GLOBAL}loss: 5\n".encode(), "loss"),
    "unknown interpolation": (f"{GLOBAL}name: ${{foo}}\n".encode(), ": Interpolation key 'foo' not found"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_an_own_file_is_named(folder: Path, name: str) -> None:
    content, sentence = FAULTS[name]
    (folder / "x.yaml").write_bytes(content)
    ended = run("x")
    assert ended.code == 2
    assert sentence in ended.err
    assert len(ended.err.splitlines()) == 1


def test_own_names_are_among_the_options(folder: Path) -> None:
    (folder / "good.yaml").write_text(GOOD)
    assert run("good").code == 0
    assert run("god").err == "segkd: there is no experiment called 'god'; did you mean 'good'?\n"
    assert ", good, " in run("zzzzzz").err


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, len(GOOD)),
    length=st.integers(0, 12),
    inserted=st.sampled_from([b"\t", b":", b"- ", b"[", b"}", b"\x00", b"\xff", b"&a", b"*a", b"!!set ", b"${", b"5", b"\n", b"? "]),
)  # fmt: skip
def test_damaged_experiment_is_never_a_traceback(folder: Path, start: int, length: int, inserted: bytes) -> None:
    content = GOOD.encode()
    (folder / "x.yaml").write_bytes(content[:start] + inserted + content[start + length :])
    ended = run("x")
    assert ended.code in (0, 2)
    assert "Traceback" not in ended.err
