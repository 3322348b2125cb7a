"""Reads what an offline W&B run leaves, since the package offers no reader: LevelDB's log format around protobuf records."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

_BLOCK, _HEADER, _PREAMBLE = 32768, 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbRun(NamedTuple):
    """One run, read back."""

    id: str
    group: str
    directory: Path
    """Its files lie in it."""
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]


def wandb_runs(directory: Path) -> list[WandbRun]:
    """All runs under a directory."""
    return [_read(path) for path in sorted(directory.rglob("*.wandb"))]


def _read(path: Path) -> WandbRun:
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + 10  # wandb returns from `finish` before the file is whole
    while True:
        records = [Record.FromString(content) for content in _records(path.read_bytes())]
        if any(record.HasField("exit") for record in records) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    run = next(record.run for record in records if record.HasField("run"))
    config = _items(run.config.update)
    for record in records:
        if record.HasField("config"):
            config |= _items(record.config.update)
    history = [_items(record.history.item) for record in records if record.HasField("history")]
    summary: dict[str, Any] = {}
    for record in records:
        if record.HasField("summary"):
            summary |= _items(record.summary.update)
    return WandbRun(run.run_id, run.run_group, path.parent / "files", config, history, summary)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> list[bytes]:
    records, parts, at = [], b"", _PREAMBLE
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:
            break
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (_FULL, _LAST):
            records.append(parts)
            parts = b""
    return records
