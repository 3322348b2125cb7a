"""The entry of every command: help, and what it imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segkd.cli.commands import COMMANDS
from tests.helpers.commands import Command

PROGRAM = """
import sys
from segkd.cli.launch import launch
try:
    launch("train")
finally:
    print([name for name in ("torch", "pytorch_lightning", "pydantic") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("typed", "code", "expected"),
    [("--help", 0, "trainer.max_epochs=N"), ("trainer.max_epoch=3", 2, "did you mean 'trainer.max_epochs'?")],
)
def test_help_and_mistyped_keys_do_not_import_torch(typed: str, code: int, expected: str) -> None:
    """They would take seconds longer."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, typed], capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert expected in ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_the_purpose(command: Command, name: str) -> None:
    ended = command(name, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"python -m segkd.{name}: {COMMANDS[name]}\n")
    assert ("\nadversary: " in ended.out) == (name in ("train", "calibrate"))  # the others do not choose among losses


@pytest.mark.parametrize(("processes", "is_refused"), [(2, True), (1, False)])
def test_a_command_of_one_process_refuses_several(
    command: Command, monkeypatch: pytest.MonkeyPatch, processes: int, is_refused: bool
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "GROUP_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, str(processes))
    ended = command("evaluate", "model=espnet_c", "dataset=streets", "run=nowhere")
    refusal = "segkd: torchrun started 2 processes, and segkd.evaluate is one; run it without torchrun\n"
    assert ended.code == 2
    assert (ended.err == refusal) == is_refused
