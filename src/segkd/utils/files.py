"""Folders and files that a command leaves: there whole, or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from segkd.errors import UserError


def make_dir(directory: Path, key: str = "output_dir") -> Path:
    """The folder, made if it is not there: before the work, which a path that cannot be made should not cost.

    Args:
        directory: which.
        key: the setting that names it, for the sentence.

    Raises:
        UserError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {directory} ({error.strerror}); give another {key}") from None
    return directory


@contextmanager
def atomic_write(path: Path, key: str = "output_dir") -> Iterator[Path]:
    """A path to write a file or folder to, which gets the name `path` when all is written, and is gone if that fails.

    Raises:
        UserError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); make room there, or give another {key}") from None
    finally:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive_lock(lock: Path, awaited: str) -> Iterator[None]:
    """Within it no other process is within it, on the same lock file; one that is there is waited for, and named on stderr.

    The system takes the lock from a process that is gone, however it ended.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"segkd: waiting for {awaited}", file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()
