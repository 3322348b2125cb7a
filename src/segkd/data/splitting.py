"""Split images into train, val and test by their names, a seed, and groups that stay together."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from segkd.errors import UserError

REST = "train"
"""The split of all images that no fraction takes."""
PARENT = "parent"
"""The `group` that stands for the folder of an image."""


def assign_splits(
    names: Collection[str],
    fractions: Mapping[str, float],
    seed: int = 0,
    group: str | None = None,
    together: Iterable[Collection[str]] = (),
) -> dict[str, str]:
    r"""Return the split of each image: those of `fractions`, and `train` for the rest.

    Groups stand in an order that is a hash of their names and the seed. Each split takes, in this order, the groups that fit
    into its fraction, then one more if that is nearer to it, and always at least one. So the result depends on the names alone,
    not on their order or the machine, and most images keep their split when others are added: without groups, one more
    image moves at most one other into or out of `val`.

    Args:
        names: Unique names, such as paths below a folder with `/` and without suffix.
        fractions: Split → part of the images, above 0; their sum is below 1.
        seed: Another number gives other splits.
        group: A regular expression, matched at the start of each name; images of an equal match, or of an equal first
            capturing group, share a split. `[^_]+` is all before the first underscore, `cam\d+` a camera; `parent` is the
            folder. None keeps no images together.
        together: Sets of further names that share a split.

    Raises:
        UserError: The fractions or the expression are invalid, a name does not match, or there are fewer groups than splits.

    Example:
        >>> assign_splits(["a_1", "a_2", "b_1", "b_2"], {"val": 0.5}, group="[^_]+")
        {'a_1': 'train', 'a_2': 'train', 'b_1': 'val', 'b_2': 'val'}
    """
    check_fractions(fractions)
    groups = find_groups(names, group, together)
    if len(groups) <= len(fractions):
        raise UserError(_explain_few_groups(groups, [REST, *fractions], group))
    waiting = sorted(groups, key=lambda key: _hash_name(key, seed))
    split_of = dict.fromkeys(names, REST)
    for position, (split, fraction) in enumerate(fractions.items()):
        later = len(fractions) - position  # train and the splits to come need a group each
        sizes = [len(groups[key]) for key in waiting]
        taken = {waiting[i] for i in _choose_groups(sizes, fraction * len(split_of), len(waiting) - later)}
        split_of.update((name, split) for key in taken for name in groups[key])
        waiting = [key for key in waiting if key not in taken]
    return split_of


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Check that the parts of the images leave some for `train`.

    Raises:
        UserError: There is none, one is not above 0, or their sum is not below 1.
    """
    given = ", ".join(f"{split}: {fraction:g}" for split, fraction in fractions.items())
    if not fractions:
        raise UserError("no split gets a part of the images; give one such as val: 0.2")
    if min(fractions.values()) <= 0 or sum(fractions.values()) >= 1:
        raise UserError(
            f"the parts of the images are {given}; give parts above 0 whose sum is below 1, such as val: 0.2"
        )


def find_groups(
    names: Iterable[str], group: str | None, together: Iterable[Collection[str]] = ()
) -> Mapping[str, Sequence[str]]:
    """Return group → its names; see `assign_splits`.

    Raises:
        UserError: The expression is invalid, or names do not match it.
    """
    return _merge_groups(_group_by_name(names, group), together)


def _group_by_name(names: Iterable[str], group: str | None) -> dict[str, list[str]]:
    """Return group → its names by the expression alone.

    Raises:
        UserError: The expression is invalid, or names do not match it.
    """
    if group is None:
        return {name: [name] for name in names}
    found: dict[str, list[str]] = defaultdict(list)
    if group == PARENT:
        for name in names:
            found[name.rpartition("/")[0]].append(name)
        return found
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UserError(f"group: '{group}' is no regular expression ({error}); give one such as '[^_]+'") from None
    unmatched = []
    for name in names:
        if (match := pattern.match(name)) and (key := match[1] if pattern.groups else match[0]):
            found[key].append(name)
        else:
            unmatched.append(name)
    if unmatched:
        more = f" and {len(unmatched) - 1} more" if len(unmatched) > 1 else ""
        raise UserError(
            f"group: '{group}' does not match the start of '{min(unmatched)}'{more}; give a regular expression that matches the "
            f"start of every name, or '{PARENT}' for the folder"
        )
    return found


def _merge_groups(groups: Mapping[str, list[str]], together: Iterable[Collection[str]]) -> dict[str, list[str]]:
    """Join the groups of which a set of `together` holds names; the first group's name is that of the joined one."""
    parent = {key: key for key in groups}

    def find_root(key: str) -> str:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    group_of = {name: key for key, names in groups.items() for name in names}
    for names in together:
        roots = sorted({find_root(group_of[name]) for name in names})
        for root in roots[1:]:
            parent[root] = roots[0]
    merged: dict[str, list[str]] = defaultdict(list)
    for key, names in groups.items():
        merged[find_root(key)] += names
    return merged


def _choose_groups(sizes: Sequence[int], target: float, most: int) -> list[int]:
    """Return the indices of at most `most` groups, in order, whose sizes add up to about the target; at least one."""
    chosen: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if len(chosen) < most and total + size <= target:
            chosen.append(i)
            total += size
    rest = sorted({*range(len(sizes))} - {*chosen})
    if len(chosen) < most and rest:
        nearest = min(rest, key=lambda i: abs(total + sizes[i] - target))
        if not chosen or abs(total + sizes[nearest] - target) < abs(total - target):
            chosen.append(nearest)
    return chosen


def _hash_name(name: str, seed: int) -> tuple[str, str]:
    # macOS may give names decomposed: e and an accent for é.
    normal = unicodedata.normalize("NFC", name)
    return hashlib.sha256(f"{seed}/{normal}".encode("utf-8", "surrogateescape")).hexdigest(), normal


def _explain_few_groups(groups: Mapping[str, Sequence[str]], splits: Sequence[str], group: str | None) -> str:
    images = sum(map(len, groups.values()))
    wanted = f"{', '.join(splits[:-1])} and {splits[-1]}"
    if len(groups) == images:
        count = "1 image is" if images == 1 else f"{images} images are"
        return f"{count} too few for {wanted}; each needs at least one"
    kind = "near_duplicates" if group is None else f"group: '{group}'"
    first = min(groups)
    example = f" and the first is '{first}'" if first else ""
    return (
        f"{kind} makes {len(groups)} group{'s' * (len(groups) != 1)} of {images} images{example}, too few for {wanted}; each split needs "
        "one of its own, so make smaller groups"
    )
