"""Keys of a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def flatten(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a config with their values; an empty mapping has none."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
