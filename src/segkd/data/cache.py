"""Keep results of long computations in the user's cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from segkd.errors import UserError
from segkd.utils.files import atomic_write

T = TypeVar("T")


def load_or_compute(kind: str, key: str, compute: Callable[[], T]) -> T:
    """Return a result from `~/.cache/segkd`, or under `XDG_CACHE_HOME`; or compute it and write it there.

    Args:
        kind: Folder of such results.
        key: Identifies the computation and its input; part of a file's name.
        compute: The computation; its result is valid JSON.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = root / "segkd" / kind / f"{key}.json"
    with suppress(OSError, ValueError):
        cached: T = json.loads(path.read_bytes())
        return cached
    result = compute()
    with suppress(OSError, UserError):  # without a writable cache, the result is computed each time
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial_file:
            partial_file.write_text(json.dumps(result), encoding="utf-8")
    return result
