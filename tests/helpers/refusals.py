"""Refused commands and the files that cause refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.helpers.commands import Result


class RunsCode:
    """Creates the file `executed` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def assert_refused(result: Result, *phrases: str) -> None:
    """Check for exit code 2, the phrases in one last sentence, no output, and no file left in the current folder."""
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    *log, sentence = [line for line in result.err.splitlines() if line.startswith("segkd: ")]
    assert all(".safetensors: segkd's " in line for line in log), log  # which checkpoint was loaded
    for phrase in phrases:
        assert phrase in sentence
    assert not Path("executed").exists()
    assert not Path("run").exists()
    assert not list(Path().glob("runs/*/*"))
