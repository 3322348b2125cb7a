"""Pair images with label files in the layouts in which people keep them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from segkd.data.discovery import find_images
from segkd.data.label_names import LOSSY_SUFFIXES
from segkd.errors import UserError
from segkd.import_labels.annotations import Notes

_LABEL_WORDS = frozenset(
    ("label", "labels", "mask", "masks", "annotation", "annotations", "annot", "gt", "groundtruth", "seg", "segmentation",
     "segmentations", "segmentationclass", "segmentationclasspng")
)  # fmt: skip
_IMAGE_WORDS = frozenset(("image", "images", "img", "imgs", "jpegimages", "photo", "photos"))
_UNUSED_FOLDERS = frozenset(("segmentationobject", "segmentationclassvisualization", "segmentationobjectvisualization"))
_JOINED = re.compile(r"(?<=[a-z])annot$")  # SegNet's trainannot


class Pair(NamedTuple):
    """An image with its label."""

    image: Path
    name: PurePosixPath
    """Path of the image without the folders that say that it is one."""
    label: Path


class _File(NamedTuple):
    path: Path
    folder: tuple[str, ...]
    """Folders without the words that say what the files in them are."""
    words: frozenset[str]
    """These words."""


def pair_files(root: Path, image_folder: Path | None, notes: Notes) -> list[Pair]:
    """Find images and their labels.

    Labels lie in folders whose names say so (`masks`, `train_labels`, `SegmentationClass`), or beside the images with such a
    word at the end of their name (`a_mask.png`), or as PNG of the same name beside a JPEG.

    Args:
        root: Folder of all files, or of the labels.
        image_folder: Folder of the images if it is another.
        notes: Gets the images without a label, and what else is left out.

    Raises:
        UserError: There are no labels, or it is not clear which label belongs to an image.
    """
    files = _list_files(root, notes)
    if image_folder is not None:
        images = _list_files(image_folder, notes)
        labels = [file for file in files if file.words & _LABEL_WORDS] or files
    else:
        images, labels = _divide(files, notes)
    lossy = [file.path for file in labels if file.path.suffix.lower() in LOSSY_SUFFIXES]
    labels = [file for file in labels if file.path.suffix.lower() not in LOSSY_SUFFIXES]
    if lossy and not labels:
        raise UserError(f"{lossy[0]} and the other labels are JPEGs, whose compression changes ids; export them as PNG")
    if lossy:
        notes.add("JPEGs among the labels are left out, for compression changes ids", str(lossy[0]), len(lossy))
    if not labels:
        raise UserError(
            f"{root} holds no labels; put them into a folder such as masks, with the names of the images, or beside the images as "
            "a_mask.png"
        )
    return _match(images, labels, notes)


def _list_files(root: Path, notes: Notes) -> list[_File]:
    found = find_images(root)
    if found.left_out:
        notes.add(
            "images are left out, for segkd does not read their format", str(found.left_out[0]), len(found.left_out)
        )
    files = [_describe(path, root) for path in found.paths]
    return [file for file in files if not file.words & _UNUSED_FOLDERS]


def _describe(path: Path, root: Path) -> _File:
    folder, words = [], set()
    for part in path.relative_to(root).parent.parts:
        lower = part.lower().replace("ground_truth", "groundtruth")
        own = re.split(r"[-_ ]", _JOINED.sub("_annot", lower))
        kinds = {word for word in own if word in _LABEL_WORDS | _IMAGE_WORDS | _UNUSED_FOLDERS}
        words |= kinds
        if rest := [word for word in own if word not in kinds] if kinds else [part]:
            folder.append("_".join(rest))
    return _File(path, tuple(folder), frozenset(words))


def _divide(files: Sequence[_File], notes: Notes) -> tuple[list[_File], list[_File]]:
    """Return the images and the labels."""
    labels = [file for file in files if file.words & _LABEL_WORDS]
    others = [file for file in files if not file.words & _LABEL_WORDS]
    if labels:
        images = [file for file in others if file.words & _IMAGE_WORDS]
        if images and (left_out := [file.path for file in others if not file.words & _IMAGE_WORDS]):
            notes.add("images outside the folders of images are left out", str(left_out[0]), len(left_out))
        return images or others, labels
    stems = {(file.path.parent, file.path.stem) for file in files}
    lossy = {(file.path.parent, file.path.stem) for file in files if file.path.suffix.lower() in LOSSY_SUFFIXES}
    for file in files:
        place, stem = file.path.parent, file.path.stem
        is_beside = any(
            (place, base) in stems and _is_label_ending(stem[len(base) :]) for base in _list_beginnings(stem)
        )
        is_lossless = file.path.suffix.lower() not in LOSSY_SUFFIXES
        if is_lossless and (is_beside or (place, stem) in lossy):
            labels.append(file)
    paths = {file.path for file in labels}
    return [file for file in files if file.path not in paths], labels


def _is_label_ending(ending: str) -> bool:
    return any(word in _LABEL_WORDS for word in re.split(r"[\W_]", ending.lower()))


def _list_beginnings(stem: str) -> Iterator[str]:
    """Yield what stands before a dot, dash or the like that letters follow, the longest first."""
    for match in reversed([*re.finditer(r"[\W_]", stem)]):
        # Without letters it is the number of another image.
        if re.search(r"[^\W\d_]", stem[match.start() :]):
            yield stem[: match.start()]


def _match(images: Sequence[_File], labels: Sequence[_File], notes: Notes) -> list[Pair]:
    by_place: dict[tuple[tuple[str, ...], str], _File] = {}
    for image in images:
        other = by_place.setdefault((image.folder, image.path.stem), image)
        if other != image:
            raise UserError(
                f"{other.path} and {image.path} differ only in their suffix or folder; rename or remove one"
            )
    counts = Counter(image.path.stem for image in images)
    by_stem = {image.path.stem: image for image in images if counts[image.path.stem] == 1}
    found: dict[Path, list[_File]] = defaultdict(list)
    unpaired: list[Path] = []
    for label in labels:
        names = [label.path.stem, *_list_beginnings(label.path.stem)]
        owners = [by_place.get((label.folder, name)) for name in names] + [by_stem.get(name) for name in names]
        owner = next(filter(None, owners), None)
        if owner is None:
            unpaired.append(label.path)
        else:
            found[owner.path].append(label)
    if unpaired:
        notes.add("labels without an image are left out", str(unpaired[0]), len(unpaired))
    pairs = []
    for image in images:
        if image.path not in found:
            notes.add("images without a label are left out", str(image.path))
        else:
            chosen = _choose(image.path, found[image.path], notes)
            pairs.append(Pair(image.path, PurePosixPath(*image.folder, image.path.name), chosen))
    return pairs


def _choose(image: Path, labels: Sequence[_File], notes: Notes) -> Path:
    paths = [label.path for label in labels]
    exact = [path for path in paths if path.stem == image.stem] or paths
    if len(exact) > 1:
        raise UserError(f"{exact[0]} and {exact[1]} both may be the label of {image}; leave one of them there")
    if len(paths) > 1:
        notes.add(
            "files that may be labels, too, are left out",
            str(next(path for path in paths if path not in exact)),
            len(paths) - 1,
        )
    return exact[0]
