"""What an import draws of an export, and the files of exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segkd.data.image_io import Array
from segkd.import_labels.annotations import UNLABELED, Export, Notes
from segkd.import_labels.rasterize import Drawing, draw_regions


def draw_labels(export: Export, notes: Notes | None = None) -> dict[str, Array]:
    """Return the label map of each image: indices of the export's classes, `IGNORED` and `UNLABELED`."""
    ids = {entry.name: i for i, entry in enumerate(export.classes)}
    labels = {}
    for image in export.images:
        if callable(image.content):
            labels[image.name] = image.content()
        else:
            size = image.size or Image.open(image.path).size[::-1]
            drawing = Drawing(ids, UNLABELED, export.is_ordered)
            labels[image.name] = draw_regions(image.content, size, drawing, notes or Notes(), image.name)
    return labels


def write_image(path: Path, size: tuple[int, int] = (6, 8), value: int = 90) -> Path:
    """Write a gray image of a height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def paint(picture: str, values: dict[str, int]) -> Array:
    """Return the label map that a picture shows, a character a pixel, rows apart by blanks; '.' is unlabeled."""
    values = {".": UNLABELED, **values}
    return np.array([[values[character] for character in row] for row in picture.split()], np.uint8)
