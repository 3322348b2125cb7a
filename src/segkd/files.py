"""Folders and files that a command leaves: there whole, or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segkd.errors import UserError


def made(directory: Path, key: str = "output_dir") -> Path:
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
def whole(path: Path, key: str = "output_dir") -> Iterator[Path]:
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
