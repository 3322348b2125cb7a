"""Comparing the classes that weights were trained on with those of a dataset."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

from segkd.errors import UserError
from segkd.models.base import SegmentationModel

ClassCheck = Literal["names", "count"]
"""What must agree: names and their order, or the number of classes alone."""

_MAX_LISTED = 4


class OtherClassesError(UserError):
    """A network's classes are not those of the dataset."""


def name_classes(
    network: SegmentationModel, classes: Sequence[str] | int | None = None, extra_classes: int = 0
) -> tuple[str, ...]:
    """Return the names of the classes of the data that a network predicts.

    Args:
        network: its last output may be void.
        classes: the names, or their number, which gives "0", "1", …; None for the network's own.
        extra_classes: outputs that it must have beyond these.

    Raises:
        UserError: the network has another number of outputs.
    """
    if isinstance(classes, str):
        raise UserError(f"classes='{classes}' is a single text; give a list of names")
    if classes is None:
        classes = network.classes or network.num_classes - extra_classes
    names = tuple(map(str, range(classes) if isinstance(classes, int) else classes))
    if network.num_classes not in (len(names) + extra_classes, len(names) + 1):
        raise UserError(
            f"the network has {network.num_classes} outputs, and there are {len(names)} classes; build it with "
            f"num_classes={len(names) + extra_classes}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"classes={list(names)} names a class twice")
    return names


def has_classes(network: SegmentationModel, names: Sequence[str], check: ClassCheck) -> bool:
    """Return whether the outputs of a network are these classes, as far as is known; one more output may be void."""
    if network.classes is None:
        return network.num_classes in (len(names), len(names) + 1)
    return find_class_difference(network.classes, names, check) is None


def check_classes(
    network: SegmentationModel, names: Sequence[str], check: ClassCheck, file: str, dataset: str, cure: str
) -> None:
    """Check that the outputs of a network are the classes of a dataset.

    Args:
        network: with its classes, or None where nothing is known of them. Its last output may then be void.
        names: the classes of the dataset, in order.
        check: what must agree.
        file: where the network comes from, for the message.
        dataset: name of the dataset, for the message.
        cure: what to do, for the message.

    Raises:
        OtherClassesError: they are not; names the first difference.
    """
    if has_classes(network, names, check):
        return
    if network.classes is None:
        raise OtherClassesError(f"{file} has {network.num_classes} classes, {dataset} has {len(names)}; {cure}")
    raise OtherClassesError(explain_difference(network.classes, names, file, dataset, cure))


def find_class_difference(one: Sequence[str], other: Sequence[str], check: ClassCheck = "names") -> int | None:
    """Return the first index at which two lists of classes differ, letter case and spaces aside; None if they agree."""
    if len(one) != len(other):
        return next((i for i, pair in enumerate(_zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other)))
    if check == "count":
        return None
    return next((i for i, pair in enumerate(_zip(one, other)) if pair[0] != pair[1]), None)


def explain_difference(one: Sequence[str], other: Sequence[str], file: str, dataset: str, cure: str) -> str:
    """Return the sentence for classes that differ, with the cure."""
    difference = describe_difference(one, other, file, dataset)
    is_renamed = len(one) == len(other) and not _is_reordered(one, other)
    hint = ", or give check_classes=count if these are the same classes under other names" if is_renamed else ""
    return f"{difference}; {cure}{hint}"


def describe_difference(one: Sequence[str], other: Sequence[str], file: str, dataset: str) -> str:
    """Return in which class two lists of classes differ first."""
    index = find_class_difference(one, other)
    assert index is not None
    if len(one) != len(other):
        return f"{file} has {_list_names(one)}, {dataset} has {_list_names(other)}"
    order = " (the same names in another order)" if _is_reordered(one, other) else ""
    return f"class {index} is '{one[index]}' in {file} and '{other[index]}' in {dataset}{order}"


def find_by_name(names: Sequence[str], name: str) -> int | None:
    """Return the index of a class, letter case and spaces aside; None if there is none."""
    folded = _fold(names)
    target = _fold([name])[0]
    return folded.index(target) if target in folded else None


def _is_reordered(one: Sequence[str], other: Sequence[str]) -> bool:
    return sorted(_fold(one)) == sorted(_fold(other))


def _zip(one: Sequence[str], other: Sequence[str]) -> list[tuple[str, str]]:
    folded = _fold(one), _fold(other)
    # Names that differ in nothing but case are different classes.
    is_unique = all(len(set(names)) == len(names) for names in folded)
    return list(zip(*(folded if is_unique else (one, other)), strict=False))


def _fold(names: Sequence[str]) -> list[str]:
    return [" ".join(unicodedata.normalize("NFC", name).casefold().split()) for name in names]


def _list_names(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _MAX_LISTED else ""
    return f"{len(names)} classes ({', '.join(names[:_MAX_LISTED])}{more})"
