"""Running segkd's commands: in this process, which is quick, or in one of their own, as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

from segkd.cli.launch import launch


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str
) -> Result:
    """`python -m segkd.NAME ARGUMENTS`, without a new process."""
    monkeypatch.setattr(sys, "argv", [f"segkd.{name}", *arguments])
    GlobalHydra.instance().clear()
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        launch(name)
    return Result(int(end.value.code or 0), *capsys.readouterr())


def started(name: str, *arguments: str, cwd: Path, threads: int = 1, hit: str | None = None) -> subprocess.Popen[str]:
    """`python -m segkd.NAME ARGUMENTS` as a process that runs; a training that is hit as `hit.py` tells, where `hit` is given."""
    program = ("-m", f"segkd.{name}") if hit is None else (str(Path(__file__).with_name("fault_injection.py")),)
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "HIT": hit or ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores interrupts, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def in_own_process(
    name: str, *arguments: str, cwd: Path, threads: int = 1, timeout: float = 280, hit: str | None = None
) -> Result:
    """`python -m segkd.NAME ARGUMENTS` to its end."""
    process = started(name, *arguments, cwd=cwd, threads=threads, hit=hit)
    out, err = process.communicate(timeout=timeout)
    return Result(process.returncode, out, err)
