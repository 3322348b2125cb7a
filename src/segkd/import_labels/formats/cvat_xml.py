"""Read 'CVAT for images 1.1': one XML file with the shapes of all images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from segkd.data.image_io import Color
from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Export, Notes, ReadSettings, Region
from segkd.import_labels.assemble import assemble_export, parse_color
from segkd.import_labels.formats.cvat_shapes import read_number, read_shape
from segkd.import_labels.image_files import ImageFinder
from segkd.import_labels.xml_files import read_xml

ANNOTATION_FILE = "annotations.xml"
_TYPES_WITHOUT_AREA = ("tag", "points", "polyline", "skeleton", "cuboid")
_NO_SUBSET = "default"


class _Reading(NamedTuple):
    file: Path
    images: ImageFinder
    settings: ReadSettings
    notes: Notes


def read_xml_export(files: Sequence[Path], root: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read one XML file, or those of several tasks.

    Args:
        files: The XML files.
        root: Where the images are, unless in `settings.image_folder`.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: See `read_cvat`.
    """
    classes: dict[str, Color | None] = {}
    images: list[AnnotatedImage] = []
    finder = ImageFinder([settings.image_folder or root])
    for file in files:
        document = _read_document(file)
        _add_classes(document, file, classes, notes)
        images += _read_images(document, _Reading(file, finder, settings, notes))
    finder.note_unused(notes)
    return assemble_export(classes, images, notes, f"<meta> of {files[0].name}")


def _read_document(file: Path) -> Element:
    document = read_xml(file)
    if document.tag != "annotations":
        raise UserError(f"{file} holds <{document.tag}>, not CVAT's <annotations>; export as 'CVAT for images 1.1'")
    if (track := document.find("track")) is not None:
        raise UserError(
            f"{file} holds tracks, the first of '{track.get('label')}': it is 'CVAT for video 1.1', which is not read; "
            "export the same task as 'CVAT for images 1.1' or 'Segmentation mask 1.1'"
        )
    return document


def _add_classes(document: Element, file: Path, classes: dict[str, Color | None], notes: Notes) -> None:
    """Add the labels of a file that can have an area, in their order."""
    for label in document.iterfind("meta//labels/label"):
        name = (label.findtext("name") or "").strip()
        if label.findtext("parent") or label.findtext("type") in _TYPES_WITHOUT_AREA:
            notes.add("labels of tags, points, lines and skeletons are no classes", f"'{name}' in {file}")
            continue
        color = parse_color(label.findtext("color") or "")
        if classes.setdefault(name, color) != color:
            notes.add("labels have another color in another file, and keep the first", f"'{name}' in {file}")
    if not classes:
        raise UserError(f"{file} names no labels in <meta>; export it again from CVAT")


def _read_images(document: Element, reading: _Reading) -> list[AnnotatedImage]:
    images: dict[tuple[str, str], AnnotatedImage] = {}
    for image in document.iterfind("image"):
        name, subset = image.get("name", ""), image.get("subset", _NO_SUBSET)
        if (subset, name) in images:
            raise UserError(
                f"{reading.file} annotates {name} twice, in the subset {subset}; give the tasks of a project subsets "
                "of their own, or export them one by one"
            )
        found = reading.images.find(name, reading.notes, reading.file.parent, subset)
        if found is not None:
            where = f"{name} in {reading.file}"
            size = (int(read_number(image, "height", where)), int(read_number(image, "width", where)))
            content = _read_regions(image, where, reading)
            images[subset, name] = AnnotatedImage(
                found.path, found.name, content, size, None if subset == _NO_SUBSET else subset
            )
    return list(images.values())


def _read_regions(image: Element, place: str, reading: _Reading) -> tuple[Region, ...]:
    """Return the regions of an image, the lowest z-order first, and those of equal z-order as they stand in the file."""
    regions: list[tuple[float, Region]] = []
    for number, shape in enumerate(image, 1):
        label = shape.get("label", "").strip()
        where = f"<{shape.tag}> {number} ('{label}') of {place}"
        part = read_shape(shape, where, reading.settings, reading.notes)
        if part is not None:
            regions.append((read_number(shape, "z_order", where, "0"), Region(label, (part,))))
    return tuple(region for _, region in sorted(regions, key=lambda pair: pair[0]))
