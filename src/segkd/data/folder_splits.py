"""The key `splits` of `classes.yaml`: how the images of a folder are split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segkd.data.cache import load_or_compute
from segkd.data.near_duplicates import MAX_DISTANCE, group_near_duplicates
from segkd.data.splitting import PARENT, REST, assign_splits, check_fractions, find_groups
from segkd.errors import UserError

SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
"""Names, in lower case, of folders that hold a split and no group of images."""
_FORM = "{val: 0.2, test: 0.1, seed: 0, group: '[^_]+', near_duplicates: true}, of which all but val may be left out"
_MAX_ROUNDING = 1e-3  # of parts such as 0.333, 0.333 and 0.333
_MAX_DEVIATION = 0.051  # of the part that a split gets from the one that is asked for


class SplitRule(NamedTuple):
    """Content of the key `splits`."""

    fractions: dict[str, float]
    """Split → part of the images; `train` gets the rest."""
    seed: int
    group: str | None
    """See `assign_splits`."""
    near_duplicates: bool
    """Whether images that show nearly the same share a split."""


class ImageSplits(NamedTuple):
    """The result of a rule."""

    rule: SplitRule
    split_of: dict[str, str]
    """Name of an image → its split."""
    num_groups: int


def read_split_rule(value: Any) -> SplitRule:
    """Return the rule that a value of `splits` describes.

    Raises:
        UserError: It describes none.
    """
    if not isinstance(value, dict) or (unknown := sorted(str(key) for key in value.keys() - {*_CHECKS})):
        given = f"has the key {unknown[0]}" if isinstance(value, dict) else f"is {value!r}"
        raise UserError(f"'splits' {given}; give {_FORM}")
    for key, (is_valid, expected) in _CHECKS.items():
        if key in value and not is_valid(value[key]):
            raise UserError(f"'{key}' of 'splits' is {value[key]!r}; give {expected}")
    parts = {split: float(value[split]) for split in ("val", "test") if split in value}
    if "val" not in parts:
        raise UserError(f"'splits' has no val, which scores a training; give {_FORM}")
    if REST in value and abs(value[REST] + sum(parts.values()) - 1) > _MAX_ROUNDING:
        total = f"{value[REST] + sum(parts.values()):g}"
        raise UserError(f"the parts of 'splits' add up to {total}; leave out {REST}, which gets the rest")
    try:
        check_fractions(parts)
    except UserError as error:
        raise UserError(f"'splits': {error}") from None
    return SplitRule(parts, value.get("seed", 0), value.get("group"), value.get("near_duplicates", False))


def split_images(paths: Mapping[str, Path], rule: SplitRule) -> ImageSplits:
    """Split images by a rule.

    Args:
        paths: Unique name → image.
        rule: How to split them.

    Raises:
        UserError: They cannot be split so.
    """
    together = _find_near_duplicates(paths) if rule.near_duplicates else []
    split_of = assign_splits(paths, rule.fractions, rule.seed, rule.group, together)
    return ImageSplits(rule, split_of, len(find_groups(paths, rule.group, together)))


def describe_splits(splits: ImageSplits) -> str:
    """Return a clause on the number of images and groups, the seed, and the part that each split gets."""
    number = len(splits.split_of)
    groups = f" in {splits.num_groups} groups" if splits.num_groups < number else ""
    names = (REST, *splits.rule.fractions)
    parts = ", ".join(f"{split} {_compute_part(splits, split):.0%}" for split in names)
    deviations = [deviation for split in names if (deviation := explain_deviation(splits, split))]
    return "; ".join([f"{number} images{groups} by seed {splits.rule.seed}: {parts}", *deviations])


def explain_deviation(splits: ImageSplits, split: str) -> str:
    """Return a clause if a split gets much more or less than its part, as groups are not divided; empty otherwise."""
    part = _compute_part(splits, split)
    asked = splits.rule.fractions.get(split, part)
    if abs(part - asked) <= _MAX_DEVIATION or splits.num_groups == len(splits.split_of):
        return ""
    return f"{split} gets {part:.0%} of the images where {asked:.0%} are asked for, as groups are not divided"


def _compute_part(splits: ImageSplits, split: str) -> float:
    return [*splits.split_of.values()].count(split) / len(splits.split_of)


def _find_near_duplicates(paths: Mapping[str, Path]) -> list[list[str]]:
    """Return groups of names; cached by the paths, sizes and modification times of the images."""
    names = sorted(paths)
    content = [1, MAX_DISTANCE, *(_describe_file(paths[name]) for name in names)]
    key = hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()

    def compute() -> list[list[int]]:
        index_of = {paths[name]: index for index, name in enumerate(names)}
        groups = group_near_duplicates([paths[name] for name in names], progress="comparing images")
        return [[index_of[path] for path in group] for group in groups]

    return [[names[index] for index in group] for group in load_or_compute("near_duplicates", key, compute)]


def _describe_file(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:  # reported where the image is read
        return str(path), 0, 0
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_PART = (_is_number, "a part of the images between 0 and 1, such as 0.2")
_CHECKS: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys((REST, "val", "test"), _PART),
    "seed": (lambda value: type(value) is int, "an integer"),
    "group": (_is_text, f"the beginning that names share, as a regular expression such as '[^_]+', or {PARENT}"),
    "near_duplicates": (lambda value: type(value) is bool, "true or false"),
}
