"""Choose the split of each image: the export's own, or a new one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from segkd.data.splitting import REST, assign_splits
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


def choose_splits(
    images: Sequence[AnnotatedImage], names: Sequence[str], settings: SplitSettings, notes: Notes
) -> list[str]:
    """Return the split of each image.

    An export that has `train` and `val` keeps its splits. Otherwise its images are divided, but those of `test` stay there.

    Args:
        images: All images.
        names: Their unique names, by which they are divided.
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
        for name, split in zip(names, own, strict=True):
            if not split:
                notes.add("images are in no split of the export and go to train", name)
        return [split or REST for split in own]
    stays = [not settings.resplit and split == "test" for split in own]
    if all(stays):
        stays = [False] * len(own)
    divided = [i for i, stay in enumerate(stays) if not stay]
    if present := sorted({own[i] for i in divided} - {""}):
        notes.add(
            f"images of the export's split {', '.join(present)} are divided anew", names[divided[0]], len(divided)
        )
    split_of = _divide([images[i] for i in divided], [names[i] for i in divided], settings, any(stays))
    return ["test" if stay else split_of[name] for name, stay in zip(names, stays, strict=True)]


def _divide(
    images: Sequence[AnnotatedImage], names: Sequence[str], settings: SplitSettings, has_test: bool
) -> dict[str, str]:
    fractions = {"val": _DEFAULT_VAL if settings.val is None else settings.val, "test": settings.test or 0.0}
    if has_test and settings.test:
        raise UserError(
            "the export has a split test of its own; leave out test=, or give resplit=true to divide all images anew"
        )
    fractions = {split: part for split, part in fractions.items() if part}
    if not fractions:
        return dict.fromkeys(names, REST)
    together: list[list[str]] = []
    if settings.near_duplicates:
        from segkd.data.splitting import group_near_duplicates

        name_of = {image.path: name for image, name in zip(images, names, strict=True)}
        together = [[name_of[path] for path in paths] for paths in group_near_duplicates([*name_of])]
    return assign_splits(names, fractions, settings.seed, settings.group, together)
