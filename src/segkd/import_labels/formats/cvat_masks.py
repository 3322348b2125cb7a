"""Read 'Segmentation mask 1.1' of CVAT: colored masks in the layout of PASCAL VOC, and the names of their colors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkd.data.discovery import find_images
from segkd.data.image_io import read_bytes
from segkd.data.proposal import LABEL_MAP, read_label_map
from segkd.errors import UserError
from segkd.import_labels.annotations import (
    IGNORED,
    UNLABELED,
    AnnotatedImage,
    Export,
    LabelClass,
    Notes,
    ReadSettings,
)
from segkd.import_labels.assemble import find_background, is_void
from segkd.import_labels.image_files import ImageFinder
from segkd.import_labels.label_files import ValueMap, read_label_file

MASK_FOLDER = "SegmentationClass"
_IMAGE_FOLDER = "JPEGImages"
LIST_FOLDER = Path("ImageSets", "Segmentation")
_NO_SUBSET = "default"
_UNION = "trainval"


def read_mask_export(root: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read the masks of a task or a project; their pixels are kept as they are.

    Args:
        root: Folder that holds `SegmentationClass` and `labelmap.txt`.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: See `read_cvat`.
    """
    classes, values = _read_classes(root, notes)
    finder = ImageFinder([_find_image_folder(root, settings.image_folder)])
    masks = {
        path.relative_to(root / MASK_FOLDER).with_suffix("").as_posix(): path
        for path in find_images(root / MASK_FOLDER).paths
    }
    splits = read_image_lists(root / LIST_FOLDER) or dict.fromkeys(masks)
    images = []
    for name, split in splits.items():
        found = finder.find(name, notes, split=split)
        if found is not None:
            mask = masks.get(name)
            content = partial(read_label_file, mask, values) if mask else ()
            images.append(AnnotatedImage(found.path, found.name, content, split=split))
    finder.note_unused(notes)
    if left_out := [path for name, path in masks.items() if name not in splits]:
        notes.add(f"masks are in no list of {LIST_FOLDER} and left out", str(left_out[0]), len(left_out))
    return Export(classes, images, find_background([entry.name for entry in classes]))


def read_image_lists(folder: Path) -> dict[str, str | None]:
    """Return name → split of the lists of a VOC layout, where `default` is no split; nothing if there are none.

    Raises:
        UserError: Two lists have the same image.
    """
    lists = {path.stem: path for path in sorted(folder.glob("*.txt"))}
    if len(lists) > 1:
        lists.pop(_UNION, None)
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for name in read_bytes(path).decode("utf-8-sig", errors="replace").splitlines():
            if not (name := name.strip()):
                continue
            if splits.get(name, split) != split:
                raise UserError(f"{name} is in {splits[name]}.txt and {path.name} of {folder}; leave it in one")
            splits[name] = split
    return {name: None if split == _NO_SUBSET else split for name, split in splits.items()}


def _read_classes(root: Path, notes: Notes) -> tuple[list[LabelClass], ValueMap]:
    path = root / LABEL_MAP
    if not path.is_file():
        raise UserError(
            f"there is no {path}, which names the colors of {MASK_FOLDER}; export again as 'Segmentation mask 1.1', or "
            "use from=folder with a classes.yaml"
        )
    entries = read_label_map(path)
    if not entries:
        raise UserError(f"{path} has no line such as car:128,0,0::; export again as 'Segmentation mask 1.1'")
    classes: list[LabelClass] = []
    by_color: dict[int, int] = {}
    names: dict[int, str] = {}
    background = find_background([name for name, _ in entries])
    for name, (red, green, blue) in entries:
        color = red << 16 | green << 8 | blue
        if max(red, green, blue) > 255 or color in by_color:
            reason = f"the color of '{names[color]}'" if color in by_color else "a color beyond 255"
            raise UserError(f"{path} gives '{name}' {reason} ({red},{green},{blue}); give each label its own in CVAT")
        names[color] = name
        if is_void(name):
            notes.add("pixels of labels such as void are ignored", f"'{name}' in {path}")
            by_color[color] = IGNORED
            continue
        by_color[color] = UNLABELED if name == background else len(classes)
        classes.append(LabelClass(name, (red, green, blue)))
    return classes, ValueMap({"colors": by_color, "ids": dict(enumerate(by_color.values()))}, str(path))


def _find_image_folder(root: Path, given: Path | None) -> Path:
    if given is not None:
        return given
    if not (root / _IMAGE_FOLDER).is_dir():
        raise UserError(
            f"{root} holds no images (there is no {_IMAGE_FOLDER}); export again with 'Save images', or give "
            "image_folder=DIR"
        )
    return root / _IMAGE_FOLDER
