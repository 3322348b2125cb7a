"""Find and check the JSON files of a COCO export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segkd.errors import UserError
from segkd.import_labels.annotations import Notes
from segkd.import_labels.json_files import read_json
from segkd.import_labels.splits import find_split_in_name

_EXPECTED = "COCO's instances, a JSON file with images, annotations and categories"
Entry = Mapping[str, Any]
ImageId = int | str


class CocoFile(NamedTuple):
    """A checked file."""

    path: Path
    split: str | None
    """The split that its folder or its name says."""
    images: Mapping[ImageId, Entry]
    categories: Mapping[int, Entry]
    """In the order of their ids."""
    annotations: Mapping[ImageId, Sequence[Entry]]
    """By image, in the order of the file."""


def find_coco_files(path: Path, notes: Notes) -> list[Path]:
    """Return the files to read: of a folder that also holds other annotations of the same images, only the instances.

    Raises:
        UserError: There is none.
    """
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*.json") if not file.name.startswith("."))
    if not found:
        raise UserError(f"{path} holds no JSON file; give {_EXPECTED}, or a folder that holds some")
    instances = [file for file in found if file.name.startswith("instances_")]
    if instances and len(instances) < len(found):
        other = [file for file in found if file not in instances]
        notes.add("JSON files beside instances_*.json are not read", str(other[0]), len(other))
    return instances or found


def read_coco_file(path: Path, root: Path, notes: Notes) -> CocoFile:
    """Read and check a file.

    Args:
        path: The file.
        root: The folder that was given, or the file itself; folders below it may name the split.
        notes: Gets annotations of images that the file does not list.

    Raises:
        UserError: It is no such file, or ids are missing or given twice.
    """
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    lists: list[Any] = [content.get(key) for key in keys] if isinstance(content, dict) else [None]
    if not all(isinstance(part, list) and all(isinstance(entry, dict) for entry in part) for part in lists):
        raise UserError(f"{path} is not {_EXPECTED}; give another file, or remove this one from the folder")
    images, annotations, categories = lists
    if any("segments_info" in annotation for annotation in annotations):
        raise UserError(f"{path} is a panoptic annotation, which is not read; give the instances of the same images")
    by_id = _index(images, path, "images")
    by_image: dict[ImageId, list[Entry]] = defaultdict(list)
    for annotation in annotations:
        key = annotation.get("image_id")
        if isinstance(key, int | str) and key in by_id:
            by_image[key].append(annotation)
        else:
            notes.add("annotations of images that their file does not list are left out", f"image {key} in {path}")
    return CocoFile(path, _find_split(path, root), by_id, _index_categories(categories, path), by_image)


def _index_categories(categories: Sequence[Entry], path: Path) -> dict[int, Entry]:
    by_id = _index(categories, path, "categories")
    for key, category in by_id.items():
        if type(key) is not int or not isinstance(category.get("name"), str | int):
            raise UserError(f"{path}: the category {dict(category)} needs a whole number as id, and a name; correct it")
    return {int(key): by_id[key] for key in sorted(by_id)}


def _index(entries: Sequence[Entry], path: Path, kind: str) -> dict[ImageId, Entry]:
    by_id: dict[ImageId, Entry] = {}
    for entry in entries:
        key = entry.get("id")
        if not isinstance(key, int | str):
            raise UserError(f"{path}: an entry of '{kind}' has the id {key!r}; give each a number")
        if key in by_id:
            raise UserError(f"{path}: two entries of '{kind}' have the id {key!r}; give each its own")
        by_id[key] = entry
    return by_id


def _find_split(path: Path, root: Path) -> str | None:
    """Return the split that the innermost folder below `root` names, or else the file's name."""
    folders = path.relative_to(root).parts[:-1] if path != root else (path.parent.name,)
    names = [*reversed(folders), path.stem]
    return next((split for name in names if (split := find_split_in_name(name))), None)
