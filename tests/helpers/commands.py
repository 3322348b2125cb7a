"""Run segkd's commands: in this process, which is quick, or in one of their own, as a user does."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

from segkd.cli.launch import launch
from segkd.utils.plugins import VARIABLE


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def in_process(name: str, *arguments: str) -> Result:
    """Run `python -m segkd.NAME ARGUMENTS` without a new process."""
    out, err, argv, path = io.StringIO(), io.StringIO(), sys.argv, [*sys.path]
    plugins = os.environ.get(VARIABLE)
    _keep_capture_open()
    GlobalHydra.instance().clear()
    sys.argv = [f"segkd.{name}", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            launch(name)
    finally:
        sys.argv, sys.path[:] = argv, path
        os.environ.pop(VARIABLE, None)
        if plugins is not None:
            os.environ[VARIABLE] = plugins
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def _keep_capture_open() -> None:
    """Keep absl, which TensorBoard brings, from closing what was stderr at its import: Hydra closes all log handlers at its start."""
    for reference in logging._handlerList:  # type: ignore[attr-defined]
        handler = reference()
        if type(handler).__module__ == "absl.logging":
            handler.stream = sys.__stderr__  # which it leaves open


def start_process(
    name: str, *arguments: str, cwd: Path, threads: int = 1, fault: str | None = None
) -> subprocess.Popen[str]:
    """`python -m segkd.NAME ARGUMENTS` as a process that runs; a training with faults as in fault_injection.py, where `fault` is given."""
    program = ("-m", f"segkd.{name}") if fault is None else (str(Path(__file__).with_name("fault_injection.py")),)
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "FAULT": fault or ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores interrupts, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def in_own_process(
    name: str, *arguments: str, cwd: Path, threads: int = 1, timeout: float = 280, fault: str | None = None
) -> Result:
    """`python -m segkd.NAME ARGUMENTS` to its end."""
    process = start_process(name, *arguments, cwd=cwd, threads=threads, fault=fault)
    out, err = process.communicate(timeout=timeout)
    return Result(process.returncode, out, err)
