"""`python -m segkd`: the list of commands, and retired ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segkd.cli.commands import COMMANDS, RETIRED, load_command
from segkd.config.paths import CONFIGS


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)


def test_all_commands_are_listed() -> None:
    assert COMMANDS.keys() == {path.stem for path in CONFIGS.glob("*.yaml")}
    printed = run_module("segkd").stdout
    assert all(f"  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_a_function_of_its_name(name: str) -> None:
    assert load_command(name).__name__ == {"import": "import_labels"}.get(name, name)  # a keyword of Python


def test_unknown_command_is_refused() -> None:
    ended = run_module("segkd", "trian")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no command called 'trian'; did you mean 'train'?" in ended.stderr


@pytest.mark.process
@pytest.mark.parametrize("name", RETIRED)
def test_retired_command_names_its_successor(name: str) -> None:
    for call in (("segkd", name), (f"segkd.{name}", "runs=x")):
        ended = run_module(*call)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert RETIRED[name] in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
