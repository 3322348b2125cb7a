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
