"""Read COCO's instances: polygons, run-length encoded masks and boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Export, LabelClass, Notes, Outline, ReadSettings, Region
from segkd.import_labels.formats.coco_file import CocoFile, Entry, find_coco_files, read_coco_file
from segkd.import_labels.formats.coco_objects import read_object
from segkd.import_labels.formats.coco_outlines import are_outlines_indices
from segkd.import_labels.image_files import ImageFinder


def read_coco(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read a file, or all files of a folder.

    Args:
        path: A JSON file, or a folder that holds some, with the images below it.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: It is no such export, or it is damaged or contradicts itself.
    """
    files = [read_coco_file(file, path, notes) for file in find_coco_files(path, notes)]
    if settings.outlines is None:
        settings = settings._replace(outlines=_guess_outlines(files, notes))
    finder = ImageFinder([settings.image_folder or _find_root(path)])
    classes = _merge_categories(files, notes)
    images: dict[Path, AnnotatedImage] = {}
    for file in files:
        for image in _read_images(file, finder, settings, notes):
            if known := images.get(image.path):
                notes.add("images are listed twice, and their regions put together", f"{image.path} in {file.path}")
                image = known._replace(content=(*known.content, *image.content))  # type: ignore[misc]
            images[image.path] = image
    finder.note_unused(notes)
    return Export([LabelClass(name) for name in classes], [*images.values()])


def _guess_outlines(files: Sequence[CocoFile], notes: Notes) -> Outline:
    objects = (
        (entry, _read_size(file.images[key]))
        for file in files
        for key, entries in file.annotations.items()
        for entry in entries
    )
    if not are_outlines_indices(objects):
        return "edges"
    notes.add(
        "exports have outlines whose points are pixel indices, by their boxes or ends, as those of cv2.findContours, and are "
        "drawn so; outlines=edges takes them as positions",
        str(files[0].path),
    )
    return "centers"


def _find_root(path: Path) -> Path:
    """Return the folder that holds the images."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _merge_categories(files: Sequence[CocoFile], notes: Notes) -> list[str]:
    """Return the names of all categories, those of the first file first.

    Roboflow lists the project itself as a category, which is the supercategory of all others and has no annotation.
    """
    used = {
        str(key) for file in files for objects in file.annotations.values() for key in _list_categories(objects, file)
    }
    parents = {str(entry.get("supercategory")) for file in files for entry in file.categories.values()}
    holders = Counter(_get_name(entry) for file in files for entry in file.categories.values())
    names = []
    for name, count in holders.items():
        if name in parents and name not in used:
            notes.add("categories that are only the heading of others are left out", name)
            continue
        if count < len(files):
            notes.add("categories are in some of the files only", name)
        names.append(name)
    return names


def _list_categories(objects: Sequence[Entry], file: CocoFile) -> Iterator[str]:
    for annotation in objects:
        key = annotation.get("category_id")
        if isinstance(key, int) and key in file.categories:
            yield _get_name(file.categories[key])


def _read_images(file: CocoFile, finder: ImageFinder, settings: ReadSettings, notes: Notes) -> Iterator[AnnotatedImage]:
    for key, entry in file.images.items():
        name = entry.get("file_name") or entry.get("coco_url")  # LVIS has the address alone
        if not isinstance(name, str):
            raise UserError(f"{file.path}: the image {key} has no file_name; export it again")
        if found := finder.find(name, notes, file.path.parent, file.split):
            regions = _read_regions(file, entry, file.annotations.get(key, ()), settings, notes)
            yield AnnotatedImage(found.path, found.name, regions, _read_size(entry), file.split)


def _read_regions(
    file: CocoFile, image: Entry, annotations: Sequence[Entry], settings: ReadSettings, notes: Notes
) -> tuple[Region, ...]:
    regions = []
    for annotation in annotations:
        where = f"annotation {annotation.get('id')} of {image['file_name']} in {file.path}"
        category = _find_category(file, annotation, where)
        region = read_object(annotation, _get_name(category), _read_size(image), settings, notes, where)
        if region is not None:
            regions.append(region)
    return tuple(regions)


def _find_category(file: CocoFile, annotation: Entry, where: str) -> Mapping[str, object]:
    key = annotation.get("category_id")
    if type(key) is not int or key not in file.categories:
        known = ", ".join(f"{i} {_get_name(entry)}" for i, entry in [*file.categories.items()][:10])
        more = ", …" if len(file.categories) > 10 else ""
        raise UserError(
            f"{where} is of category {key!r}, which the file does not list ({known}{more}); export it again"
        )
    return file.categories[key]


def _read_size(image: Entry) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if not all(isinstance(side, int | float) and 0 < side < math.inf for side in (height, width)):
        return None
    return int(height), int(width)  # type: ignore[arg-type]


def _get_name(category: Mapping[str, object]) -> str:
    return str(category["name"])
