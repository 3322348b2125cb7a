"""Write files and folders atomically, lock, and hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segkd.errors import UserError

log = logging.getLogger(__name__)


def make_dir(directory: Path, key: str = "output_dir") -> Path:
    """Create a folder if it is missing, and return it. Call it before long work, which a bad path should not waste.

    Args:
        directory: the folder.
        key: the setting that names it, for the error.

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
    """Yield a temporary path to write a file or folder to; rename it to `path` at the end, or remove it on failure.

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


def write_json(file: Path, content: Any) -> None:
    """Write indented JSON in UTF-8; bytes of a file name that are no text become escapes."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive_lock(path: Path, holder: str) -> Iterator[None]:
    """Hold a lock file; wait while another process holds it, and log that. The system releases it when a process dies.

    Args:
        path: the lock file.
        holder: who may hold it, for the log.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for %s", holder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
