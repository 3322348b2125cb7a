"""The checkpoints in a run's folder: written atomically, each with its hash, the last two kept."""

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

    From the end of the first write on, one of the two is valid and matches its hash at any time, also during later writes:
    everything that a full disk can interrupt is written under temporary names first, and then renamed.

    Args:
        directory: the run's folder; temporary files lie there too, since a rename works within one file system.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.last, self.previous = (
            directory,
            directory / LAST_CHECKPOINT,
            directory / PREVIOUS_CHECKPOINT,
        )
        self._is_last_valid = False

    def latest_valid(self) -> Path | None:
        """Return the newest checkpoint that matches its hash; None if there is none at all.

        Raises:
            UserError: there are some, and none is valid.
        """
        paths = [path for path in (self.last, self.previous) if path.exists()]
        for path in paths:
            if hash_matches(path):
                self._is_last_valid = path == self.last
                return path
        if paths:
            raise UserError(
                f"no checkpoint in {self.directory} is valid ({', '.join(path.name for path in paths)} differ from their .sha256); "
                "start a new run in another output_dir"
            )
        return None

    def write(self, content: dict[str, Any]) -> None:
        """Write `content` as the last checkpoint, and keep the last as the previous one.

        Raises:
            OSError: it cannot be written; the earlier ones are unchanged.
        """
        serialized = io.BytesIO()
        torch.save(content, serialized)
        new, new_sum, old_sum = (
            self.directory / f"{name}.part"
            for name in (LAST_CHECKPOINT, _get_hash_path(self.last).name, _get_hash_path(self.previous).name)
        )
        # A damaged one must not replace the one that this run was resumed from.
        keep = self._is_last_valid and self.last.exists()
        try:
            _write_synced(new, serialized.getbuffer())
            _write_synced(new_sum, _format_hash(hashlib.sha256(serialized.getbuffer()).hexdigest(), LAST_CHECKPOINT))
            if keep:
                _write_synced(old_sum, _format_hash(_read_hash(self.last), PREVIOUS_CHECKPOINT))
        except OSError:
            for path in (new, new_sum, old_sum):
                path.unlink(missing_ok=True)
            raise
        if keep:
            old_sum.replace(_get_hash_path(self.previous))
            self.last.replace(self.previous)
        new_sum.replace(_get_hash_path(self.last))
        new.replace(self.last)
        _sync_directory(self.directory)
        self._is_last_valid = True


def hash_matches(checkpoint: Path) -> bool:
    """Return whether a checkpoint matches the hash beside it."""
    try:
        return sha256(checkpoint) == _read_hash(checkpoint)
    except OSError:
        return False


def has_hash(checkpoint: Path) -> bool:
    """Return whether there is a hash beside a checkpoint."""
    return _get_hash_path(checkpoint).exists()


def _get_hash_path(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.sha256")


def _read_hash(checkpoint: Path) -> str:
    return (_get_hash_path(checkpoint).read_text(encoding="utf-8", errors="replace").split() or [""])[0]


def _format_hash(digest: str, name: str) -> bytes:
    """Return a line as `sha256sum -c` reads it."""
    return f"{digest}  {name}\n".encode()


def _write_synced(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    """Flush a folder: a rename is on the disk once its folder is."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
