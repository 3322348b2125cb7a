"""Write an export as a `dataset=folder`."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from segkd.data.image_header import read_exif_orientation, turn_upright
from segkd.data.image_io import Array, DamagedFileError, decode_image, read_bytes
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, UNLABELED, AnnotatedImage, Export, Notes
from segkd.import_labels.class_list import ClassList
from segkd.import_labels.rasterize import Drawing, draw_regions
from segkd.utils.threads import thread_map

Transfer = Literal["copy", "hardlink", "symlink"]


class Summary(NamedTuple):
    """What was written."""

    splits: Counter[str]
    """Images of each split."""
    sizes: Counter[tuple[int, int]]
    """Images of each height and width."""
    pixels: npt.NDArray[np.int64]
    """Pixels of each id, 0..255."""


class Job(NamedTuple):
    """An image to write."""

    image: AnnotatedImage
    name: str
    """Unique in its split; with `/`, without suffix."""
    split: str


class Writer(NamedTuple):
    """Writer of the images and labels of an export into `images/SPLIT` and `labels/SPLIT`."""

    folder: Path
    """The new dataset."""
    export: Export
    class_list: ClassList
    transfer: Transfer
    """Whether images are copied or linked."""

    def write(self, jobs: Sequence[Job], workers: int, notes: Notes) -> Summary:
        """Write all images.

        Args:
            jobs: The images.
            workers: Threads.
            notes: Gets what is changed or left out.

        Raises:
            UserError: A label cannot be read, a link cannot be made, or no image is left.
        """
        summary = Summary(Counter(), Counter(), np.zeros(256, np.int64))
        for job, (label, own_notes) in zip(
            jobs, thread_map(self._write_image, jobs, workers, "writing labels"), strict=True
        ):
            notes.merge(own_notes)
            if label is not None:
                summary.splits[job.split] += 1
                summary.sizes[label.shape[0], label.shape[1]] += 1
                summary.pixels[:] += np.bincount(label.ravel(), minlength=256)
        if not summary.splits:
            raise UserError(f"no image is left to write: {'; '.join(notes.list_lines())}")
        return summary

    def _write_image(self, job: Job) -> tuple[Array | None, Notes]:
        """Write an image and return its label; None if it is left out."""
        notes = Notes()
        label = self._draw_label(job.image, notes)
        if label is not None:
            target = self.folder / "labels" / job.split / f"{job.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(cv2.imencode(".png", label)[1].tobytes())
            source = job.image.path
            _transfer(source, self.folder / "images" / job.split / f"{job.name}{source.suffix}", self.transfer)
        return label, notes

    def _draw_label(self, image: AnnotatedImage, notes: Notes) -> Array | None:
        """Return the label of an upright image, or None, with a note, if it cannot have one."""
        try:
            content = read_bytes(image.path)
            height, width = decode_image(content, image.path, cv2.IMREAD_COLOR).shape[:2]
        except DamagedFileError:
            notes.add("images are damaged and left out", str(image.path))
            return None
        upright, orientation = (height, width), read_exif_orientation(content)
        stored = (width, height) if orientation >= 5 else upright
        size = image.size or upright
        if size in (upright, stored):
            label = self._draw(image, size, notes)
            if label.shape == upright:
                return label
            if label.shape == stored:
                notes.add("labels are turned as the EXIF data of their images say", str(image.path))
                return cast("Array", turn_upright(label, orientation))
            size = (label.shape[0], label.shape[1])
        example = f"{image.path}, {height}×{width} and annotated as {size[0]}×{size[1]}"
        notes.add("images of another size than their annotations are left out", example)
        return None

    def _draw(self, image: AnnotatedImage, size: tuple[int, int], notes: Notes) -> Array:
        if callable(image.content):
            return _apply_ids(image.content(), self.export, self.class_list)
        ids, unlabeled = self.class_list.ids, self.class_list.unlabeled
        drawing = Drawing(ids, unlabeled, self.export.is_ordered)
        return draw_regions(image.content, size, drawing, notes, str(image.path))


def _apply_ids(label_map: Array, export: Export, class_list: ClassList) -> Array:
    """Return ids for indices of the export's classes; classes that are not chosen are unlabeled."""
    table = np.full(256, class_list.unlabeled, np.uint8)
    table[IGNORED] = IGNORED
    for i, label in enumerate(export.classes[:UNLABELED]):
        table[i] = class_list.ids.get(label.name, class_list.unlabeled)
    return table[label_map]


def _transfer(source: Path, target: Path, transfer: Transfer) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if transfer == "copy":
        shutil.copyfile(source, target)
    elif transfer == "symlink":
        target.symlink_to(source.resolve())
    else:
        try:
            os.link(source.resolve(), target)
        except OSError as error:
            raise UserError(
                f"cannot link {source} from {target.parent} ({error.strerror}); give images=copy or images=symlink"
            ) from None
