"""Read data.yaml, which names the classes and the images of a YOLO export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segkd.data.image_io import read_bytes
from segkd.errors import UserError
from segkd.import_labels.annotations import Notes
from segkd.import_labels.layout import find_layout

_SPLITS = ("train", "val", "valid", "test")
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


class YoloTable(NamedTuple):
    """Classes, and where the images are."""

    path: Path
    """The file that names the classes."""
    names: Mapping[int, str]
    sources: Sequence[tuple[str | None, Path]]
    """Split, and a folder of images or a text file that lists them."""


def read_yolo_table(path: Path, notes: Notes) -> YoloTable:
    """Read the yaml file of an export or, where there is none, the names in `classes.txt`, with all images below the folder.

    Args:
        path: The yaml file, or the folder that holds it.
        notes: Gets classes that have a number and no name.

    Raises:
        UserError: There is no such file, there are several, or one is invalid.
    """
    if path.is_file():
        return _read_yaml(path, notes)
    path = find_layout(path, lambda folder: bool(_find_tables(folder) or _find_lists(folder))) or path
    tables, lists = _find_tables(path), _find_lists(path)
    if len(tables) > 1:
        raise UserError(f"{tables[0]} and {tables[1]} both name classes; give the one to read as input")
    if tables:
        table = _read_yaml(tables[0], notes)
        if lists and _read_list(lists[0]) != table.names:
            raise UserError(f"{tables[0]} and {lists[0]} name different classes; remove the wrong one")
        return table
    if not lists:
        raise UserError(
            f"{path} holds no yaml file with names of classes, and no classes.txt; give that of one export, or the yaml file itself"
        )
    return YoloTable(lists[0], _read_list(lists[0]), [(None, path)])


def _find_tables(folder: Path) -> list[Path]:
    """Return the yaml files with names of classes."""
    contents = {file: _load(file) for file in sorted(folder.glob("*.y*ml"))}
    return [file for file, content in contents.items() if isinstance(content, dict) and "names" in content]


def _find_lists(folder: Path) -> list[Path]:
    """Return the text files with a name a line."""
    return [folder / name for name in _NAME_FILES if (folder / name).is_file()]


def _read_list(path: Path) -> dict[int, str]:
    lines = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
    return {i: line.strip() for i, line in enumerate(lines) if line.strip()}


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{path} is no valid YAML; export it again") from None


def _read_yaml(path: Path, notes: Notes) -> YoloTable:
    content = _load(path)
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{path} has no 'names'; give the data.yaml of an export")
    names = _read_names(path, content["names"], content.get("nc"))
    if content.get("kpt_shape"):
        raise UserError(f"{path} is an export of keypoints (kpt_shape), not of outlines; export segmentation")
    base = _find_base(path, content.get("path"))
    sources = [
        ("val" if split == "valid" else split, _resolve(path, base, str(value)))
        for split in _SPLITS
        for value in _as_list(content.get(split))
    ]
    if not sources:
        raise UserError(f"{path} names no images; it takes 'train', 'val' and 'test', each a folder or a text file")
    existing = [(split, source) for split, source in sources if source.exists()]
    for split, source in sources:
        if not source.exists():
            notes.add("splits that are not there are left out", f"{split} of {path}, {source}")
    if not existing:
        raise UserError(
            f"{path} names {sources[0][1]}, which is not there; unpack the whole export, or correct the path"
        )
    return YoloTable(path, names, existing)


def _read_names(path: Path, names: Any, count: Any) -> dict[int, str]:
    """Return number → name of a list or a mapping."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else None
    if pairs is None or not all(type(key) is int and key >= 0 for key, _ in pairs):
        raise UserError(f"{path}: 'names' is {names!r}; give a list of names, or number: name")
    read = {
        key: str(name) for key, name in sorted((names if isinstance(names, dict) else dict(enumerate(names))).items())
    }
    if type(count) is int and count != len(read):
        raise UserError(f"{path} has {len(read)} names and nc: {count}; correct one")
    return read


def _find_base(path: Path, given: Any) -> Path:
    """Return the folder to which the paths of a yaml file are relative; `path` often names one of another machine."""
    if isinstance(given, str) and given.strip():
        for base in (path.parent / given, path.parent.parent / given):  # an absolute one stays as it is
            if base.is_dir():
                return base
    return path.parent


def _resolve(path: Path, base: Path, value: str) -> Path:
    """Return the path of a source; Roboflow writes `../train/images` for `train/images`."""
    plain = Path(*(part for part in Path(value).parts if part not in ("..", ".", "/")))
    candidates = (base / value, path.parent / value, path.parent / plain)
    return next((source for source in candidates if source.exists()), candidates[-1])


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
