"""Names, ids and colors of imported classes, and what pixels under no region are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, Export, LabelClass, Notes
from segkd.import_labels.class_list import ClassList, Unlabeled, describe_classes, list_classes

BLACK, RED = (0, 0, 0), (255, 0, 0)


def make_export(*classes: str | LabelClass, background: str | None = None) -> Export:
    labels = [LabelClass(entry) if isinstance(entry, str) else entry for entry in classes]
    return Export(labels, [], background)


def list_them(
    export: Export, chosen: list[str] | None = None, unlabeled: Unlabeled = "background"
) -> tuple[ClassList, list[str]]:
    notes = Notes()
    return list_classes(export, chosen, unlabeled, notes), notes.list_lines()


@pytest.mark.parametrize(
    ("export", "unlabeled", "names", "value"),
    [
        (make_export("car", "bus"), "background", ["background", "car", "bus"], 0),
        (make_export("car", "bus"), "ignore", ["car", "bus"], IGNORED),
        (make_export("car", "Background"), "background", ["car", "Background"], 1),
        (make_export("_background_", "car"), "background", ["_background_", "car"], 0),
        (make_export("car", "Background"), "ignore", ["car", "Background"], IGNORED),
        (make_export("car", "rest", background="rest"), "background", ["car", "rest"], 1),
    ],
)
def test_pixels_under_no_region(export: Export, unlabeled: Unlabeled, names: list[str], value: int) -> None:
    classes, notes = list_them(export, unlabeled=unlabeled)
    assert [label.name for label in classes.classes] == names
    assert classes.unlabeled == value
    assert classes.ids == {name: i for i, name in enumerate(names) if name != "background"}
    assert notes == []


def test_chosen_classes_keep_the_order_of_the_export() -> None:
    classes, _ = list_them(make_export("a", "b", "c", "d"), ["d", "b"])
    assert classes.ids == {"b": 1, "d": 2}
    classes, _ = list_them(make_export("a", "background", "c"), ["c"])
    assert classes.ids == {"background": 0, "c": 1}


def test_names_are_cleaned_and_merged() -> None:
    classes, notes = list_them(make_export("car", " car ", "a\tb", "", "\ud800"))
    assert classes.ids == {"car": 1, " car ": 1, "a\tb": 2, "": 3, "\ud800": 4}
    assert [label.name for label in classes.classes] == ["background", "car", "a b", "unnamed", "\\ud800"]
    assert notes == ["classes of one name are merged: 1, the first is car"]


def test_colors_are_those_of_the_export_once_each() -> None:
    classes, notes = list_them(make_export(LabelClass("a", BLACK), LabelClass("b", RED), LabelClass("c", RED)))
    assert [label.color for label in classes.classes] == [None, BLACK, RED, None]
    assert notes == ["classes have the color of another class and get one of their own: 1, the first is c"]


@pytest.mark.parametrize(
    ("export", "settings", "sentence"),
    [
        (make_export(*map(str, range(250))), {}, r"there are 251 classes, and a dataset has at most 250; choose some"),
        (
            make_export("car"),
            {"unlabeled": "ignore"},
            "the class car alone, .* at least two; give unlabeled=background",
        ),
        (make_export("a", "b"), {"chosen": ["a"], "unlabeled": "ignore"}, "the class a alone, .*; choose more"),
        (make_export(), {"unlabeled": "ignore"}, "there is no class"),
        (make_export("car", "bus"), {"chosen": ["cars"]}, "classes: .*'cars'.*'car'"),
    ],
)
def test_too_many_too_few_and_unknown_classes(export: Export, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        list_them(export, **settings)


def test_two_hundred_and_fifty_classes_are_allowed() -> None:
    assert len(list_them(make_export(*map(str, range(249))))[0].classes) == 250


def describe(pixels: dict[int, int], unused: str = "keep") -> tuple[list[int], list[str]]:
    counts = np.zeros(256, np.int64)
    counts[[*pixels]] = [*pixels.values()]
    notes = Notes()
    entries = describe_classes(list_them(make_export("a", "b", "c"))[0], counts, unused, notes)  # type: ignore[arg-type]
    return [entry["id"] for entry in entries], notes.list_lines()


def test_a_background_without_pixels_is_not_added() -> None:
    assert describe({0: 1, 1: 1, 2: 1, 3: 1}) == ([0, 1, 2, 3], [])
    assert describe({1: 1, 2: 1, 3: 1}) == ([1, 2, 3], [])


def test_unused_classes_are_kept_and_noted_or_dropped() -> None:
    kept = "classes without a pixel are kept; unused_classes=drop leaves them out: 2, the first is a"
    assert describe({0: 1, 3: 1}) == ([0, 1, 2, 3], [kept])
    assert describe({0: 1, 3: 1}, "drop") == ([0, 3], ["classes without a pixel are left out: 2, the first is a"])
    with pytest.raises(UserError, match="fewer than two classes have a pixel"):
        describe({0: 1}, "drop")
