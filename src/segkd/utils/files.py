"""Write files and folders atomically, lock, and hash."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from segkd.errors import UserError

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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


def dump_yaml(content: dict[str, Any]) -> str:
    """Return YAML that is read back as it was, with letters of all scripts where PyYAML keeps them."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    # PyYAML writes some separators of lines, such as U+0085, as themselves, and reads them as spaces.
    escaped = yaml.safe_dump(content, sort_keys=False)
    return text if text == escaped or yaml.safe_load(text) == yaml.safe_load(escaped) else escaped


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive_lock(path: Path, holder: str, refusal: str | None = None) -> Iterator[None]:
    """Hold a lock file, which the system releases when the process dies.

    While another process holds it, wait and log that, or, with a `refusal`, raise; then the file is removed at the end. On a
    file system without locks, go on without.

    Args:
        path: the lock file.
        holder: who may hold it, for the log.
        refusal: what to raise where it is held; None to wait.

    Raises:
        UserError: another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if refusal is not None:
            raise UserError(refusal) from None
        log.info("waiting for %s", holder)
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        log.warning("%s lies on a file system without locks; start nothing else there", path.parent)
    try:
        yield
    finally:
        if refusal is not None:
            path.unlink(missing_ok=True)  # before the release, or it could be another's already
        lock.release()
