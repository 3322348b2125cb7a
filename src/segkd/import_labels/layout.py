"""Find the folder of an export that an archive or a copy has put into another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segkd.data.discovery import is_hidden


def find_layout(path: Path, is_layout: Callable[[Path], bool]) -> Path | None:
    """Return the folder itself or, as long as a folder holds nothing but one folder, that one, if it has the layout."""
    while not is_layout(path):
        entries = [entry for entry in path.iterdir() if not is_hidden(entry.name)]
        if len(entries) != 1 or not entries[0].is_dir():
            return None
        path = entries[0]
    return path
