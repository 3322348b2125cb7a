"""Trainings side by side, each a process of `segkd.train`, as far as the time allows; the next call goes on where this one stopped."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segkd.errors import UserError
from segkd.study.plan import Job, is_finished
from segkd.utils.signals import STOPPING, GracefulShutdown

LOG_FILE = "train.log"
_PAUSE = 0.2  # seconds between two looks at the processes
_STOPPED = {0, *(128 + number for number in STOPPING), *(-number for number in STOPPING)}
"""Exit codes of a training that has ended well, was asked to stop, or was before it could listen."""


def run_jobs(
    jobs: Sequence[Job], parallel: int, minutes: float | None, runs: Path, signals: GracefulShutdown
) -> list[Job]:
    """Run what has not finished, `parallel` at once, in order; returns the jobs that failed.

    When the time is over, or when asked to stop, every process is asked to: it saves, and the next call resumes it.

    Raises:
        UserError: another ladder, or a training that it left, is at work in `runs`.
    """
    waiting = [job for job in jobs if not is_finished(job.directory)]
    _say(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings are finished")
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    running: dict[Job, subprocess.Popen[bytes]] = {}
    failed: list[Job] = []
    with _exclusive(runs) as lock:
        try:
            while waiting or running:
                if signals.received or (ends is not None and time.monotonic() > ends):
                    break
                for job in _next_jobs(waiting, running, parallel):
                    waiting.remove(job)
                    running[job] = _start(job, lock)
                if not running:
                    break  # what is left needs a training that failed
                time.sleep(_PAUSE)
                failed += _collect_finished(running)
        finally:
            for process in running.values():
                process.send_signal(signal.SIGTERM)
            for process in running.values():
                process.wait()
            failed += _collect_finished(running)
    left = sum(not is_finished(job.directory) for job in jobs)
    if left:
        _say(f"{left} of {len(jobs)} trainings are not finished; the same command goes on with them")
    return failed


def _next_jobs(waiting: Sequence[Job], running: dict[Job, subprocess.Popen[bytes]], parallel: int) -> list[Job]:
    """The next jobs in order whose needs are there, for the places that are free."""
    able = [job for job in waiting if all(is_finished(need) for need in job.needs)]
    return able[: parallel - len(running)]


def _start(job: Job, lock: int) -> subprocess.Popen[bytes]:
    job.directory.mkdir(parents=True, exist_ok=True)
    _say(f"{job.name} starts")
    with (job.directory / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "segkd.train", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],  # held until the last training has ended, whatever becomes of this process
        )


def _collect_finished(running: dict[Job, subprocess.Popen[bytes]]) -> list[Job]:
    """Takes out what has ended; returns what failed."""
    failed = []
    for job in [job for job, process in running.items() if process.poll() is not None]:
        code = running.pop(job).returncode
        if code not in _STOPPED:
            _say(f"{job.name} failed with exit code {code}; see {job.directory / LOG_FILE}")
            failed.append(job)
        elif is_finished(job.directory):
            _say(f"{job.name} is finished")
    return failed


@contextmanager
def _exclusive(runs: Path) -> Iterator[int]:
    """A lock on the folder, as a file descriptor for processes to inherit."""
    runs.mkdir(parents=True, exist_ok=True)
    lock = os.open(runs / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another ladder, or a training of one, is at work in {runs}; wait for it, or stop it"
            ) from None
        yield lock
    finally:
        os.close(lock)


def _say(text: str) -> None:
    print(f"segkd: {text}", file=sys.stderr, flush=True)
