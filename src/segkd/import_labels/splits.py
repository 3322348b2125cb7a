"""Choose the split of each image: the export's own, or a new one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from segkd.data.folder_splits import SplitRule, split_images
from segkd.data.splitting import REST
from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Notes

_DEFAULT_VAL = 0.2
_SYNONYMS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


class SplitSettings(NamedTuple):
    """How images are divided that the export does not divide itself."""

    val: float | None
    """Part of the images; None: 0.2, and the export's own splits are kept if it has them."""
    test: float | None
    seed: int
    group: str | None
    """See `assign_splits`."""
    near_duplicates: bool
    """Whether nearly equal images stay together."""
    resplit: bool
    """Whether all images are divided anew."""


def normalize_split(name: str) -> str:
    """Return the usual name of a split: `train` for `Training` and `train2017`, `val` for `valid`."""
    lower = name.strip().lower()
    base = re.sub(r"[-_ ]?(19|20)\d\d$", "", lower)
    usual = _SYNONYMS.get(base, base)
    return usual if usual in ("train", "val", "test") else name


def find_split_in_name(stem: str) -> str | None:
    """Return the split that a file's name contains, such as `instances_val2017`; None if there is none."""
    splits = [normalize_split(word) for word in re.split(r"[-_. ]", stem)]
    return next((split for split in reversed(splits) if split in ("train", "val", "test")), None)


def find_names(images: Sequence[AnnotatedImage], splits: Sequence[str], notes: Notes) -> list[str]:
    """Return names that are unique within each split, also where letters of both cases are the same."""
    taken: set[tuple[str, str]] = set()
    names = []
    for image, split in zip(images, splits, strict=True):
        name, number = image.name, 1
        while (split, name.casefold()) in taken:
            number += 1
            name = f"{image.name}-{number}"
        if name != image.name:
            notes.add("images share their name with another and get a number", f"{image.path} → {name}")
        taken.add((split, name.casefold()))
        names.append(name)
    return names


def choose_splits(images: Sequence[AnnotatedImage], settings: SplitSettings, notes: Notes) -> list[str]:
    """Return the split of each image.

    An export that has `train` and `val` keeps its splits. Otherwise its images are divided, but those of `test` stay there.

    Args:
        images: All images.
        settings: How they are divided.
        notes: Gets what becomes of splits that the export has.

    Raises:
        UserError: Parts are given for an export with its own splits, or the images cannot be divided so.
    """
    own = [normalize_split(image.split) if image.split else "" for image in images]
    if not settings.resplit and {"train", "val"} <= {*own}:
        if settings.val is not None or settings.test is not None:
            raise UserError(
                f"the export has splits of its own ({', '.join(sorted({*own} - {''}))}); leave out val= and test= to keep "
                "them, or give resplit=true to divide all images anew"
            )
        if loose := [image for image, split in zip(images, own, strict=True) if not split]:
            notes.add("images are in no split of the export and go to train", str(loose[0].path), len(loose))
        return [split or REST for split in own]
    stays = [not settings.resplit and split == "test" for split in own]
    if all(stays):
        stays = [False] * len(own)
    divided = [image for image, stay in zip(images, stays, strict=True) if not stay]
    _note_division(divided, own, settings, notes)
    new = iter(_divide(divided, settings, any(stays)))
    return ["test" if stay else next(new) for stay in stays]


def _note_division(
    divided: Sequence[AnnotatedImage], own: Sequence[str], settings: SplitSettings, notes: Notes
) -> None:
    """Note which images leave their split, and that nothing says which images belong together."""
    path = str(divided[0].path)
    if present := sorted({normalize_split(image.split) for image in divided if image.split}):
        lacking = " and ".join(split for split in ("train", "val") if split not in own)
        export = f"the export has no {lacking}, and its" if lacking else "the export's"
        notes.add(f"{export} images of {', '.join(present)} are divided anew", path, len(divided))
    copies = Counter(image.name.rpartition(".rf.")[0] for image in divided if ".rf." in image.name)
    if settings.group is None and (several := [name for name, count in copies.items() if count > 1]):
        # Roboflow names the copies of one picture NAME.rf.HASH.
        kind = (
            "pictures have augmented copies that may get into two splits; 'group=\"(.+)[.]rf[.]\"' keeps them together"
        )
        notes.add(kind, several[0], len(several))
    elif not present and settings.val is None and settings.group is None and not settings.near_duplicates:
        kind = (
            "images of an export without splits are divided one by one; group= or near_duplicates=true keeps together "
            "what belongs together, such as the frames of a video"
        )
        notes.add(kind, path, len(divided))


def _divide(images: Sequence[AnnotatedImage], settings: SplitSettings, has_test: bool) -> list[str]:
    if has_test and settings.test:
        raise UserError(
            "the export has a split test of its own; leave out test=, or give resplit=true to divide all images anew"
        )
    fractions = {"val": _DEFAULT_VAL if settings.val is None else settings.val, "test": settings.test or 0.0}
    fractions = {split: part for split, part in fractions.items() if part}
    names = find_names(images, [REST] * len(images), Notes())
    if not fractions:
        return [REST] * len(images)
    paths = {name: image.path for name, image in zip(names, images, strict=True)}
    rule = SplitRule(fractions, settings.seed, settings.group, settings.near_duplicates)
    split_of = split_images(paths, rule).split_of
    return [split_of[name] for name in names]
