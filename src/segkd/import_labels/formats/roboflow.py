"""Read exports of Roboflow: COCO segmentation, YOLO segmentation and semantic segmentation masks."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from segkd.data.discovery import find_images
from segkd.data.image_io import Array, read_bytes
from segkd.data.label_io import decode_label
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, UNLABELED, AnnotatedImage, Export, LabelClass, Notes, ReadSettings
from segkd.import_labels.formats.coco import read_coco
from segkd.import_labels.formats.yolo import read_yolo

_COCO_FILE, _YOLO_FILE, _MASK_FILE = "_annotations.coco.json", "data.yaml", "_classes.csv"
_MASK_SUFFIX = "_mask.png"
_FORMATS = "'COCO Segmentation', 'YOLOv8' (of a segmentation project) or 'Semantic Segmentation Masks'"


def read_roboflow(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Recognize which of its formats an export has, and read it.

    Args:
        path: The folder of the export, which holds a folder per split.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: It has none of the formats, or several, or is damaged.
    """
    files = {name: sorted(path.rglob(name)) for name in (_COCO_FILE, _YOLO_FILE, _MASK_FILE)} if path.is_dir() else {}
    found = [name for name, paths in files.items() if paths]
    if len(found) > 1:
        raise UserError(f"{path} holds {found[0]} and {found[1]}; give the folder of one export")
    if found == [_COCO_FILE]:
        return read_coco(path, settings, notes)
    if found == [_YOLO_FILE]:
        return read_yolo(files[_YOLO_FILE][0].parent, settings, notes)
    if found == [_MASK_FILE]:
        return _read_masks(files[_MASK_FILE], notes)
    raise UserError(f"{path} is no export of Roboflow that has outlines or masks; export {_FORMATS}")


def _read_masks(tables: list[Path], notes: Notes) -> Export:
    """Read folders of images with masks, `a.jpg` and `a_mask.png`, each with a table of classes."""
    names = _read_classes(tables[0])
    images = []
    for table in tables:
        if _read_classes(table) != names:
            raise UserError(f"{tables[0]} and {table} give the pixel values different classes; export all splits again")
        folder = table.parent
        split = folder.name if len(tables) > 1 or folder.name in ("train", "valid", "test") else None
        found = find_images(folder, recursive=False).paths
        masks = {file.name.removesuffix(_MASK_SUFFIX): file for file in found if file.name.endswith(_MASK_SUFFIX)}
        photos = [file for file in found if not file.name.endswith(_MASK_SUFFIX)]
        for photo in photos:
            if mask := masks.pop(photo.stem, None):
                images.append(
                    AnnotatedImage(photo, photo.stem, partial(_read_mask, mask, table, [*names]), split=split)
                )
            else:
                notes.add("images without a mask are left out", str(photo))
        if masks:
            notes.add("masks without an image are left out", str(next(iter(masks.values()))), len(masks))
    return Export([LabelClass(name) for name in names.values()], images)


def _read_classes(path: Path) -> dict[int, str]:
    """Return value → name of the lines `Pixel Value, Class`."""
    rows = [row for row in csv.reader(read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()) if row]
    try:
        names = {int(value): name.strip() for value, name in rows[1:]}
    except ValueError:
        raise UserError(f"{path} is no table of 'Pixel Value, Class'; export it again") from None
    if len(names) < len(rows) - 1 or not all(0 <= value < UNLABELED for value in names):
        raise UserError(f"{path} needs a value of its own, from 0 to {UNLABELED - 1}, for each class; export it again")
    return names


def _read_mask(path: Path, table: Path, values: list[int]) -> Array:
    """Return the indices of the classes to which the values of a mask belong."""
    mask = decode_label(read_bytes(path), path, "ids").values
    indices = np.full(256, IGNORED, np.uint8)
    indices[values] = np.arange(len(values))
    if unknown := sorted({*np.unique(mask).tolist()} - {*values}):
        raise UserError(f"{path} holds the value {unknown[0]}, which {table} does not name; export it again")
    return indices[mask]
