"""The checkpoints in a run's folder: whole or not there, each with its hash, the last two kept."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from segkd.errors import UserError
from segkd.runs.layout import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from segkd.utils.files import sha256


class CheckpointFiles:
    """`last.ckpt` and the one before it, `previous.ckpt`, each with a `.sha256` beside it.

    From the end of the first write on, at every instant of every later one, one of the two is whole and agrees with its hash:
    all that can fail for want of room is written under other names first, and then there are renames alone.

    Args:
        directory: the run's folder. Temporary files lie there too: a rename works within one file system.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.last, self.previous = (
            directory,
            directory / LAST_CHECKPOINT,
            directory / PREVIOUS_CHECKPOINT,
        )
        self._last_is_whole = False

    def newest(self) -> Path | None:
        """The newest that agrees with its hash; None where there is none at all.

        Raises:
            UserError: there are some, and none is whole.
        """
        found = [path for path in (self.last, self.previous) if path.exists()]
        for path in found:
            if hash_matches(path):
                self._last_is_whole = path == self.last
                return path
        if found:
            raise UserError(
                f"no checkpoint in {self.directory} is whole ({', '.join(path.name for path in found)} differ from their .sha256); "
                "start anew in another output_dir"
            )
        return None

    def write(self, content: dict[str, Any]) -> None:
        """Make `content` the last checkpoint, and the last the previous one.

        Raises:
            OSError: it cannot be written, and the earlier ones are as they were.
        """
        serialised = io.BytesIO()
        torch.save(content, serialised)
        new, new_sum, old_sum = (
            self.directory / f"{name}.part"
            for name in (LAST_CHECKPOINT, _sum_of(self.last).name, _sum_of(self.previous).name)
        )
        # A damaged one, from which a resumed run could not go on, must not take the place of the one from which it did.
        keep = self._last_is_whole and self.last.exists()
        try:
            _write(new, serialised.getbuffer())
            _write(new_sum, _line(hashlib.sha256(serialised.getbuffer()).hexdigest(), LAST_CHECKPOINT))
            if keep:
                _write(old_sum, _line(_recorded(self.last), PREVIOUS_CHECKPOINT))
        except OSError:
            for path in (new, new_sum, old_sum):
                path.unlink(missing_ok=True)
            raise
        if keep:
            old_sum.replace(_sum_of(self.previous))
            self.last.replace(self.previous)
        new_sum.replace(_sum_of(self.last))
        new.replace(self.last)
        _sync(self.directory)
        self._last_is_whole = True


def hash_matches(checkpoint: Path) -> bool:
    """Whether a file is what was written: its hash is the one beside it."""
    try:
        return sha256(checkpoint) == _recorded(checkpoint)
    except OSError:
        return False


def has_hash(checkpoint: Path) -> bool:
    """Whether there is a hash beside it at all."""
    return _sum_of(checkpoint).exists()


def _sum_of(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.sha256")


def _recorded(checkpoint: Path) -> str:
    return (_sum_of(checkpoint).read_text(errors="replace").split() or [""])[0]


def _line(digest: str, name: str) -> bytes:
    """As `sha256sum -c` reads it."""
    return f"{digest}  {name}\n".encode()


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """A rename is on the disk when its folder is."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
