"""Read projects of Supervisely: classes in meta.json, and a folder of images and annotations for each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from segkd.data.discovery import is_hidden
from segkd.data.image_io import Color
from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Export, Notes, ReadSettings, Region
from segkd.import_labels.assemble import assemble_export, is_split, name_by_folders, parse_color
from segkd.import_labels.formats.supervisely_objects import SHAPES_WITHOUT_AREA, read_object
from segkd.import_labels.image_files import ImageFinder
from segkd.import_labels.json_files import read_json
from segkd.import_labels.layout import find_layout

_META, _ANNOTATIONS, _IMAGES, _NESTED = "meta.json", "ann", "img", "datasets"


class _Reading(NamedTuple):
    root: Path
    settings: ReadSettings
    notes: Notes


def read_supervisely(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read all datasets of a project.

    Args:
        path: The folder that holds meta.json, or its archive's.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: It is no project, or a file is damaged or contradicts another.
    """
    root = find_layout(path, lambda folder: (folder / _META).is_file()) if path.is_dir() else None
    if root is None:
        raise UserError(f"{path} is no project of Supervisely; give the folder that holds {_META}, or its archive")
    reading = _Reading(root, settings, notes)
    classes = _read_classes(root / _META, notes)
    datasets = _find_datasets(root)
    if not datasets:
        raise UserError(
            f"{root} has {_META} and no dataset, a folder that holds {_ANNOTATIONS}; download the project again"
        )
    images = [item for dataset in datasets for item in _read_dataset(dataset, reading)]
    names = name_by_folders([path for path, _ in images])
    named = [
        image._replace(name=name, split=split or image.split)
        for (_, image), (name, split) in zip(images, names, strict=True)
    ]
    return assemble_export(classes, named, notes, _META)


def _read_classes(path: Path, notes: Notes) -> dict[str, Color | None]:
    meta = read_json(path)
    entries = meta.get("classes") if isinstance(meta, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("title"), str) for e in entries
    ):
        raise UserError(f"{path} has no list of classes with a title; download the project again")
    if (kind := meta.get("projectType", "images")) != "images":
        raise UserError(f"{path} is of a project of {kind}; only projects of images are read")
    classes: dict[str, Color | None] = {}
    for entry in entries:
        if entry.get("shape") in SHAPES_WITHOUT_AREA:
            notes.add(
                "classes of points, lines and other shapes without an area are left out",
                f"'{entry['title']}' in {path}",
            )
        else:
            classes[entry["title"]] = parse_color(str(entry.get("color")))
    return classes


def _find_datasets(root: Path) -> list[Path]:
    """Return the folders of datasets, also of those that lie in others."""
    folders = (folder.parent for folder in sorted(root.rglob(_ANNOTATIONS)) if folder.is_dir())
    return [folder for folder in folders if not any(map(is_hidden, folder.relative_to(root).parts))]


def _read_dataset(dataset: Path, reading: _Reading) -> list[tuple[PurePosixPath, AnnotatedImage]]:
    """Return the images of a dataset, each with its path below the project."""
    finder = ImageFinder([reading.settings.image_folder or dataset / _IMAGES])
    parts = [part for part in dataset.relative_to(reading.root).parts if part != _NESTED]
    images = []
    for file in sorted((dataset / _ANNOTATIONS).rglob("*.json")):
        if is_hidden(file.name):
            continue
        name = file.relative_to(dataset / _ANNOTATIONS).as_posix().removesuffix(".json")
        path = PurePosixPath(*parts, name)
        if found := finder.find(str(path), reading.notes):
            images.append((path, _read_annotation(file, found.path, reading)))
    if reading.settings.image_folder is None:
        finder.note_unused(reading.notes)
    return images


def _read_annotation(file: Path, image: Path, reading: _Reading) -> AnnotatedImage:
    content = read_json(file)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise UserError(f"{file} has no list of objects; download the project again")
    regions = []
    for number, entry in enumerate(objects, 1):
        label = str(entry.get("classTitle"))
        part = read_object(entry, f"object {number} ('{label}') of {file}", reading.settings, reading.notes)
        if part is not None:
            regions.append(Region(label, (part,)))
    given = content.get("tags")
    tags = [str(tag.get("name")) for tag in given if isinstance(tag, dict)] if isinstance(given, list) else []
    split = next(filter(is_split, tags), None)
    if others := [tag for tag in tags if not is_split(tag)]:
        reading.notes.add("tags of images are left out", f"'{others[0]}' of {file}", len(others))
    return AnnotatedImage(image, image.stem, tuple(regions), _read_size(content), split)


def _read_size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    size = content.get("size")
    height, width = (size.get(key) for key in ("height", "width")) if isinstance(size, dict) else (None, None)
    return (height, width) if type(height) is int and type(width) is int else None
