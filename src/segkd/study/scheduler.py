"""Run trainings in parallel, each in a process of its own; a stopped study continues with the next call."""

from __future__ import annotations

import fcntl
import logging
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

log = logging.getLogger(__name__)

LOG_FILE = "train.log"
_POLL_SECONDS = 0.2
_GOOD_EXIT_CODES = {0, *(128 + number for number in STOPPING), *(-number for number in STOPPING)}
"""Of a training that finished, that stopped on request, or that a signal ended before it handled signals."""


def run_jobs(
    jobs: Sequence[Job], parallel: int, minutes: float | None, runs: Path, shutdown: GracefulShutdown
) -> list[Job]:
    """Run the trainings that have not finished, in order, and return those that failed.

    When the time is up, or on a signal, every training is asked to stop; it saves, and the next call resumes it.

    Args:
        jobs: most important first.
        parallel: trainings at once.
        minutes: stop after this time; None runs all.
        runs: folder of the trainings, which is locked meanwhile.
        shutdown: records signals.

    Raises:
        UserError: if another study, or a training that it left behind, is running in `runs`.
    """
    waiting = [job for job in jobs if not is_finished(job.directory)]
    log.info(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings are finished")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    running: dict[Job, subprocess.Popen[bytes]] = {}
    failed: list[Job] = []
    with _lock_folder(runs) as lock:
        try:
            while waiting or running:
                if shutdown.received or (deadline is not None and time.monotonic() > deadline):
                    break
                for job in _select_next(waiting, parallel - len(running)):
                    waiting.remove(job)
                    running[job] = _start_training(job, lock)
                if not running:
                    break  # the remaining trainings depend on one that failed
                time.sleep(_POLL_SECONDS)
                failed += _collect_finished(running)
        finally:
            for process in running.values():
                process.send_signal(signal.SIGTERM)
            for process in running.values():
                process.wait()
            failed += _collect_finished(running)
    remaining = sum(not is_finished(job.directory) for job in jobs)
    if remaining:
        log.info(f"{remaining} of {len(jobs)} trainings are not finished; the same command continues them")
    return failed


def _select_next(waiting: Sequence[Job], count: int) -> list[Job]:
    """Return the first `count` jobs whose dependencies have finished."""
    ready = [job for job in waiting if all(is_finished(folder) for folder in job.depends_on)]
    return ready[:count]


def _start_training(job: Job, lock: int) -> subprocess.Popen[bytes]:
    job.directory.mkdir(parents=True, exist_ok=True)
    log.info(f"{job.name} starts")
    with (job.directory / LOG_FILE).open("ab") as log_file:
        return subprocess.Popen(
            [sys.executable, "-m", "segkd.train", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],  # keeps the lock until the last training has ended, even if this process is killed
        )


def _collect_finished(running: dict[Job, subprocess.Popen[bytes]]) -> list[Job]:
    """Remove the trainings that have ended from `running`; return those that failed."""
    failed = []
    for job in [job for job, process in running.items() if process.poll() is not None]:
        code = running.pop(job).returncode
        if code not in _GOOD_EXIT_CODES:
            log.info(f"{job.name} failed with exit code {code}; see {job.directory / LOG_FILE}")
            failed.append(job)
        elif is_finished(job.directory):
            log.info(f"{job.name} is finished")
    return failed


@contextmanager
def _lock_folder(runs: Path) -> Iterator[int]:
    """Lock a folder, and yield the lock's file descriptor for child processes to inherit."""
    runs.mkdir(parents=True, exist_ok=True)
    lock = os.open(runs / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another study, or a training that it started, is running in {runs}; wait for it, or stop it"
            ) from None
        yield lock
    finally:
        os.close(lock)
