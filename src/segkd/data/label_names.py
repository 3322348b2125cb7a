"""Pair images with labels by their names, and find labels that lie under another name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from segkd.data.discovery import count_files, find_images
from segkd.data.image_io import IMAGE_SUFFIXES

LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
"""Suffixes of JPEGs, whose compression changes ids."""


def pair_with_labels(
    images: Sequence[Path], image_root: Path, label_root: Path, suffix: str = ".png"
) -> list[tuple[Path, Path]]:
    """Pair each image with its label, whose relative path is that of the image without suffix, or with it, and then `suffix`.

    The suffix may be in upper or lower case.

    Args:
        images: Files below `image_root`.
        image_root: Folder of the images.
        label_root: Folder of the labels.
        suffix: Ending of the names of labels.

    Returns:
        Image and label; the path expected where there is no label.
    """
    present = {_lower_suffix(str(path), suffix): path for path in find_images(label_root).paths}
    pairs = []
    for image in images:
        relative = image.relative_to(image_root)
        names = [f"{label_root / stem}{suffix}" for stem in (relative.with_suffix(""), relative)]
        labels = [present[key] for name in names if (key := _lower_suffix(name, suffix)) in present]
        pairs.append((image, labels[0] if labels else Path(names[0])))
    return pairs


def find_unpaired_labels(
    pairs: Sequence[tuple[Path, Path]], label_root: Path, suffix: str = ".png", recursive: bool = True
) -> list[Path]:
    """Return the files with the suffix of labels that are no label of `pairs`."""
    paired = {label for _, label in pairs}
    labels = find_images(label_root, recursive).paths
    return [label for label in labels if label.name.lower().endswith(suffix.lower()) and label not in paired]


def find_misnamed_labels(
    pairs: Sequence[tuple[Path, Path]], image_root: Path, folders: Sequence[Path]
) -> dict[Path, Path]:
    """Return, for images whose label is missing, a file whose name begins like the image's.

    Args:
        pairs: Images and the labels expected.
        image_root: Folder of the images.
        folders: Where to look for labels, the likeliest first; subfolders are those of the images.
    """
    missing = {
        image.relative_to(image_root).with_suffix("").as_posix().casefold(): image
        for image, label in pairs
        if not label.is_file()
    }
    taken = {path for pair in pairs if pair[1].is_file() for path in pair}
    found: dict[Path, Path] = {}
    for folder in folders:
        if len(found) == len(missing):
            break
        candidates = _index_by_beginning(folder, taken)
        for name, image in missing.items():
            if others := [path for path in candidates[name] if path != image]:
                found.setdefault(image, others[0])
    return found


def find_same_names(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, str]:
    """Return a sentence for each image that shares its name, and so its label, with one of another suffix."""
    by_name: dict[Path, Path] = {}
    return {
        image: f"{other} and {image} differ only in their suffix; rename or remove one"
        for image, _ in pairs
        if (other := by_name.setdefault(image.with_suffix(""), image)) != image
    }


def find_missing_labels(title: str, pairs: Sequence[tuple[Path, Path]], misnamed: Mapping[Path, Path]) -> list[str]:
    """Return a sentence if labels are missing: how many, what lies there instead, and the cure.

    Args:
        title: Name of the split.
        pairs: Images and the labels expected.
        misnamed: As `find_misnamed_labels` returns it.
    """
    missing = [label for _, label in pairs if not label.is_file()]
    if not missing:
        return []
    count = f"{len(missing)} of {len(pairs)} images of {title} have no label"
    instead = _explain_misnamed_labels(pairs, misnamed) if misnamed else ""
    return [f"{count}; the first missing label is {missing[0]}{instead}"]


def find_lossy_labels(pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return a sentence if labels are JPEGs."""
    lossy = [label for _, label in pairs if label.suffix.lower() in LOSSY_SUFFIXES]
    return [f"{count_files(lossy)} JPEG, whose compression may have changed ids; export labels as PNG"] if lossy else []


def _explain_misnamed_labels(pairs: Sequence[tuple[Path, Path]], found: Mapping[Path, Path]) -> str:
    image, expected = next(pair for pair in pairs if pair[0] in found)
    label = found[image]
    ending = label.name[len(image.stem) :] if label.name.startswith(image.stem) else ""
    suffix = label.suffix.lower()
    key = f"`label_suffix: {ending}` in classes.yaml" if ending else f"the name {expected.name}"
    if label.parent != expected.parent:
        cure = f"labels are read from {expected.parent}, so move them there"
    elif suffix not in IMAGE_SUFFIXES:
        cure = "convert the labels to PNG"
    elif suffix in LOSSY_SUFFIXES:
        cure = f"JPEG changes ids, so export the labels as PNG; where the files hold nothing but ids, give {key}"
    else:
        cure = f"give {key}"
    return f"; {label} is there: {cure}"


def _lower_suffix(name: str, suffix: str) -> str:
    """Return a name with its ending in lower case if it is `suffix`."""
    stem, ending = name[: -len(suffix)], name[-len(suffix) :].lower()
    return stem + ending if ending == suffix.lower() else name


def _index_by_beginning(folder: Path, taken: Collection[Path]) -> Mapping[str, list[Path]]:
    """Return the beginnings of relative paths that end before a dot, a dash or the like, with their files, short names first."""
    images = find_images(folder)
    index: dict[str, list[Path]] = defaultdict(list)
    for path in sorted([*images.paths, *images.left_out], key=lambda path: (len(path.name), path)):
        if path not in taken:
            parent = path.parent.relative_to(folder)
            for match in re.finditer(r"[\W_]", path.name):
                index[(parent / path.name[: match.start()]).as_posix().casefold()].append(path)
    return index
