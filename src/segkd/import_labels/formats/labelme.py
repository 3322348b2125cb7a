"""Read labelme's JSON files, one an image, with the shapes drawn in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from segkd.data.discovery import is_hidden, is_still_image
from segkd.data.image_io import IMAGE_SUFFIXES, read_bytes
from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Export, Notes, ReadSettings, Region
from segkd.import_labels.assemble import assemble_export, name_by_folders
from segkd.import_labels.embedded import decode_base64
from segkd.import_labels.formats.labelme_shapes import read_shape
from segkd.import_labels.image_files import ImageFinder
from segkd.import_labels.json_files import read_json

_CLASS_FILES = ("labels.txt", "class_names.txt")
_IGNORED_LABEL = "__ignore__"  # labelme writes it into labels.txt only
_INSTANCE = re.compile(r"-\d+$")


class _Reading(NamedTuple):
    root: Path
    classes: Sequence[str] | None
    """The labels that a file lists; None if there is none."""
    images: ImageFinder
    settings: ReadSettings
    notes: Notes


def read_labelme(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read all JSON files of a folder, or one.

    Args:
        path: The folder that holds JSON files and images, or a JSON file.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: There is no such file, one is damaged, or two annotate one image.
    """
    root = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else _find_json_files(path)
    if not files:
        raise UserError(f"{path} holds no JSON files; labelme writes one beside each image")
    finder = ImageFinder([settings.image_folder or root])
    reading = _Reading(root, _read_class_names(root), finder, settings, notes)
    images: dict[Path, AnnotatedImage] = {}
    annotators: dict[Path, Path] = {}
    for file in files:
        # One file at a time, since each may hold its image.
        if (content := _read_file(file, notes)) and (image := _read_image(file, content, reading)):
            other = annotators.setdefault(image.path, file)
            if other != file:
                raise UserError(f"{other} and {file} both annotate {image.path}; remove one")
            images[image.path] = image
    finder.note_unused(notes)
    return _assemble([*annotators.values()], [*images.values()], reading)


def _find_json_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*.json")) if not any(map(is_hidden, path.relative_to(root).parts))]


def _read_file(path: Path, notes: Notes) -> Mapping[str, Any] | None:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list) or "imagePath" not in content:
        notes.add("JSON files that labelme did not write are left out", str(path))
        return None
    return content


def _read_class_names(root: Path) -> list[str] | None:
    """Return the lines of the file that lists the labels; None if there is none.

    Raises:
        UserError: Two files list other labels.
    """
    lists: dict[str, list[str]] = {}
    for name in _CLASS_FILES:
        if (root / name).is_file():
            lines = read_bytes(root / name).decode("utf-8-sig", errors="replace").splitlines()
            lists[name] = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len({frozenset(names) - {_IGNORED_LABEL} for names in lists.values()}) > 1:
        raise UserError(f"{root} holds {' and '.join(lists)}, which list other labels; remove one")
    return next(iter(lists.values()), None)


def _read_image(file: Path, content: Mapping[str, Any], reading: _Reading) -> AnnotatedImage | None:
    regions = []
    for number, shape in enumerate(content["shapes"], 1):
        where = f"shape {number} of {file}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise UserError(f"{where} has no label; save the file again with labelme")
        part = read_shape(shape, f"shape {number} ('{shape['label']}') of {file}", reading.settings, reading.notes)
        if part is not None:
            regions.append(Region(_get_class(shape["label"], where, reading), (part,)))
    path = _find_image(file, content, reading)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if type(height) is int and type(width) is int else None
    return None if path is None else AnnotatedImage(path, file.stem, tuple(regions), size)


def _get_class(label: str, where: str, reading: _Reading) -> str:
    """Return a label without the number of an instance, as in car-1."""
    base = _INSTANCE.sub("", label)
    if base in ("", label) or (
        reading.classes is not None and (label in reading.classes or base not in reading.classes)
    ):
        return label
    reading.notes.add(
        "labels are read without the number at their end (list them in labels.txt to keep it)", f"'{label}' of {where}"
    )
    return base


def _find_image(file: Path, content: Mapping[str, Any], reading: _Reading) -> Path | None:
    """Return the file that a JSON file names, or, where that is missing, the image that it holds."""
    name, misses = str(content["imagePath"]), Notes()
    if found := reading.images.find(name, misses, file.parent):
        return found.path
    if not content.get("imageData") or reading.settings.scratch_folder is None:
        reading.notes.merge(misses)
        return None
    suffix = PureWindowsPath(name).suffix
    path = reading.settings.scratch_folder / file.relative_to(reading.root)
    path = path.with_suffix(suffix if suffix.lower() in IMAGE_SUFFIXES else ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(decode_base64(content["imageData"], f"imageData of {file}"))
    if not is_still_image(path):
        raise UserError(f"imageData of {file} is no image; give the folder of the images with image_folder=DIR")
    reading.notes.add("images are missing and taken from their JSON files", str(file))
    return path


def _assemble(files: Sequence[Path], images: Sequence[AnnotatedImage], reading: _Reading) -> Export:
    names = name_by_folders([file.relative_to(reading.root) for file in files])
    images = [image._replace(name=name, split=split) for image, (name, split) in zip(images, names, strict=True)]
    used = {region.class_name for image in images for region in image.content}  # type: ignore[union-attr]
    classes = sorted(filter(None, used)) if reading.classes is None else reading.classes
    return assemble_export(dict.fromkeys(classes), images, reading.notes, "the list of labels")
