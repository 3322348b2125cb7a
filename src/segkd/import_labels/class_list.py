"""The classes of an imported dataset: names, ids and colors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.config.suggestions import explain_unknown_name
from segkd.data.image_io import Color
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, Export, LabelClass, Notes

BACKGROUND = "background"
MIN_CLASSES, MAX_CLASSES = 2, 250
_BACKGROUND_NAMES = (BACKGROUND, "_background_", "__background__")
Unlabeled = Literal["background", "ignore"]


class ClassList(NamedTuple):
    """The classes in the order of their ids, from 0."""

    classes: Sequence[LabelClass]
    ids: Mapping[str, int]
    """Name in the export → id; classes that are not chosen are left out."""
    unlabeled: int
    """The id of pixels under no region."""
    has_added_background: bool
    """Whether the export has no class for these pixels."""


def list_classes(export: Export, chosen: Sequence[str] | None, unlabeled: Unlabeled, notes: Notes) -> ClassList:
    """Return the classes of a dataset.

    Classes of one name become one. Pixels under no region are of the class that is named background, or of a new class with
    the id 0, or ignored.

    Args:
        export: The export.
        chosen: The classes to import; None: all.
        unlabeled: What pixels under no region are.
        notes: Gets what is changed.

    Raises:
        UserError: A chosen class does not exist, or there are too many or too few classes.
    """
    known = list(dict.fromkeys(_clean(label.name) for label in export.classes))
    for name in chosen or ():
        if name not in known:
            raise UserError(f"classes: {explain_unknown_name('class', name, known)}")
    background = next((name for name in known if name.lower() in _BACKGROUND_NAMES), None)
    if export.background is not None:
        background = _clean(export.background)
    classes: dict[str, LabelClass] = {}
    for label in export.classes:
        name = _clean(label.name)
        if chosen is not None and name not in chosen and (name != background or unlabeled == "ignore"):
            continue
        if name in classes:
            notes.add("classes of one name are merged", name)
        else:
            classes[name] = label._replace(name=name, color=_pick_color(label, classes.values(), notes))
    is_complete = export.is_complete and chosen is None
    has_added_background = unlabeled == "background" and background is None and not is_complete
    if has_added_background:
        black = (0, 0, 0)
        color = None if any(label.color == black for label in classes.values()) else black
        classes = {BACKGROUND: LabelClass(BACKGROUND, color), **classes}
        background = BACKGROUND
    _check_number(classes, chosen)
    order = {name: i for i, name in enumerate(classes)}
    ids = {label.name: order[_clean(label.name)] for label in export.classes if _clean(label.name) in order}
    value = IGNORED if unlabeled == "ignore" or background is None else order[background]
    return ClassList([*classes.values()], ids, value, has_added_background)


def describe_classes(
    class_list: ClassList, pixels: npt.NDArray[np.int64], unused_classes: Literal["keep", "drop"], notes: Notes
) -> list[dict[str, Any]]:
    """Return the entries of `classes` in classes.yaml; an added background that no pixel has is left out.

    Args:
        class_list: The classes.
        pixels: Pixels of each id.
        unused_classes: Whether other classes that no pixel has are left out.
        notes: Gets their number.
    """
    unused = [i for i in range(len(class_list.classes)) if pixels[i] == 0]
    dropped = {0} if class_list.has_added_background and 0 in unused and len(class_list.classes) > 2 else set()
    if others := [i for i in unused if not (class_list.has_added_background and i == 0)]:
        fate = "left out" if unused_classes == "drop" else "kept; unused_classes=drop leaves them out"
        notes.add(f"classes without a pixel are {fate}", class_list.classes[others[0]].name, len(others))
        dropped |= {*others} if unused_classes == "drop" else set()
    if len(class_list.classes) - len(dropped) < MIN_CLASSES:
        raise UserError("fewer than two classes have a pixel; give unused_classes=keep, or import more images")
    return [
        {"name": label.name, "id": i, **({"color": [*label.color]} if label.color else {})}
        for i, label in enumerate(class_list.classes)
        if i not in dropped
    ]


def _clean(name: str) -> str:
    text = name.encode("utf-8", "backslashreplace").decode()  # a lone surrogate of JSON
    return " ".join(text.split()) or "unnamed"


def _pick_color(label: LabelClass, others: Collection[LabelClass], notes: Notes) -> Color | None:
    if label.color is not None and any(other.color == label.color for other in others):
        notes.add("classes have the color of another class and get one of their own", label.name)
        return None
    return label.color


def _check_number(classes: Mapping[str, LabelClass], chosen: Sequence[str] | None) -> None:
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"there are {len(classes)} classes, and a dataset has at most {MAX_CLASSES}; choose some with 'classes=[NAME,NAME]'"
        )
    if len(classes) < MIN_CLASSES:
        cure = "choose more" if chosen is not None else "give unlabeled=background to have a second one"
        only = f"the class {next(iter(classes))} alone" if classes else "no class"
        raise UserError(f"there is {only}, and a dataset has at least two; {cure}")
