"""Make an export of what a reader found: void labels are ignored, and the background is recognized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath, PurePosixPath

from segkd.data.image_io import Color
from segkd.data.proposal import VOID_NAMES
from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Export, LabelClass, Notes, Region
from segkd.import_labels.splits import normalize_split

_BACKGROUND_NAMES = ("background", "_background_")
_SPLITS = ("train", "val", "test")


def is_void(name: str) -> bool:
    """Return whether a label of this name stands for ignored pixels."""
    return name.lower() in VOID_NAMES


def find_background(names: Sequence[str]) -> str | None:
    """Return the name that stands for the pixels under no region; None if there is none."""
    return next((name for name in names if name.lower() in _BACKGROUND_NAMES), None)


def is_split(name: str) -> bool:
    """Return whether a folder or a tag of this name stands for train, val or test."""
    return normalize_split(name) in _SPLITS


def parse_color(text: str) -> Color | None:
    """Return the color of '#rrggbb'; None if there is none."""
    try:
        red, green, blue = bytes.fromhex(text.strip().removeprefix("#"))
    except ValueError:
        return None
    return red, green, blue


def assemble_export(
    classes: Mapping[str, Color | None], images: Sequence[AnnotatedImage], notes: Notes, source: str
) -> Export:
    """Return an export whose regions lie on one another in their order.

    Args:
        classes: Label → color; void labels become ignored pixels.
        images: Images whose content are regions.
        notes: Gets the void labels.
        source: What names the labels, for the error message.

    Raises:
        UserError: A region has a label that is not in `classes`.
    """
    images = [image._replace(content=_settle_regions(image, classes, notes, source)) for image in images]
    used = [LabelClass(name, color) for name, color in classes.items() if not is_void(name)]
    return Export(used, images, find_background([entry.name for entry in used]), is_ordered=True)


def name_by_folders(files: Sequence[PurePath]) -> list[tuple[str, str | None]]:
    """Return a name and a split for each file, by the folders in which it lies.

    Args:
        files: Paths below the folder of an export. The first folder that is called as a split is the split; the others are
            in the name, but for those that all files have.
    """
    folders, splits = [], []
    for file in files:
        parts = file.parent.parts
        split = next(filter(is_split, parts), None)
        folders.append([part for part in parts if part != split])
        splits.append(split)
    levels = [*zip(*folders, strict=False)]
    common = next((level for level, names in enumerate(levels) if len({*names}) > 1), len(levels))
    names = [PurePosixPath(*parts[common:], file.stem) for parts, file in zip(folders, files, strict=True)]
    return [(str(name), split) for name, split in zip(names, splits, strict=True)]


def _settle_regions(
    image: AnnotatedImage, classes: Mapping[str, Color | None], notes: Notes, source: str
) -> tuple[Region, ...]:
    assert not callable(image.content)
    regions = []
    for region in image.content:
        name = region.class_name
        if name is not None and name not in classes:
            raise UserError(
                f"a region of {image.name} has the label '{name}', which {source} does not name; add it there, or export again"
            )
        if name is not None and is_void(name):
            notes.add("regions of labels such as void are ignored pixels", f"'{name}' in {image.name}")
            region = region._replace(class_name=None)
        regions.append(region)
    return tuple(regions)
