"""Find the files that a run's config names, also from another folder than that where its training started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segkd.runs.layout import RECORD_FILES

STARTED_IN = "started_in"
"""Key of `environment.json`: the folder that relative paths of the config begin in."""

_PATH_KEYS = ("root", "checkpoint")


def locate_paths(node: Any, run: Path) -> Any:
    """Return a run's config with the datasets and weights at the places where they are found."""
    started_in = _read_started_in(run)
    return node if started_in is None else _locate(node, started_in)


def list_places(path: str, run: Path) -> list[Path]:
    """Return where a path of a run's config may be: where its training started, and then here."""
    started_in = None if Path(path).is_absolute() else _read_started_in(run)
    return list(dict.fromkeys([Path(path)] if started_in is None else [started_in / path, Path(path).absolute()]))


def _locate(node: Any, started_in: Path) -> Any:
    if isinstance(node, list):
        return [_locate(value, started_in) for value in node]
    if not isinstance(node, dict):
        return node
    return {
        key: str(place)
        if key in _PATH_KEYS and isinstance(value, str) and (place := started_in / value).exists()
        else _locate(value, started_in)
        for key, value in node.items()
    }


def _read_started_in(run: Path) -> Path | None:
    """Return where the training of a run started; None where that is not recorded."""
    try:
        return Path(json.loads((run / RECORD_FILES[1]).read_bytes())[STARTED_IN])
    except (OSError, ValueError, TypeError, KeyError):
        return None
