"""Splits by names, a seed and groups: hand-worked cases, fractions, and what stays when images are added."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.data.splitting import assign_splits
from segkd.errors import UserError

FRAMES = [f"cam{camera}/{frame:03d}" for camera in range(10) for frame in range(20)]


def count_moved(before: dict[str, str], after: dict[str, str]) -> int:
    return sum(after[name] != split for name, split in before.items())


def test_images_are_ordered_by_the_sha256_of_seed_and_name() -> None:
    """`printf 0/c | sha256sum` begins with 2881, those of b, e, d, a with 7d9a, 7ed4, 9d84, d321."""
    assert assign_splits("abcde", {"val": 0.4}) == {"a": "train", "b": "val", "c": "val", "d": "train", "e": "train"}
    three = assign_splits("edcba", {"val": 0.2, "test": 0.4})
    assert (three["c"], three["b"], three["e"], three["d"], three["a"]) == ("val", "test", "test", "train", "train")
    assert assign_splits("abcde", {"val": 0.4}, seed=1) != assign_splits("abcde", {"val": 0.4})


@pytest.mark.parametrize(("number", "val", "test"), [(3, 1, 1), (4, 1, 1), (10, 2, 1), (101, 20, 10), (1000, 200, 100)])
def test_fractions_are_met_and_no_split_is_empty(number: int, val: int, test: int) -> None:
    counts = Counter(assign_splits([f"{i}" for i in range(number)], {"val": 0.2, "test": 0.1}).values())
    assert counts == {"train": number - val - test, "val": val, "test": test}


@pytest.mark.parametrize("group", ["parent", "[^/]+", r"cam\d", r"cam(\d+)/"])
def test_groups_are_not_divided(group: str) -> None:
    splits = assign_splits(FRAMES, {"val": 0.2, "test": 0.1}, group=group)
    cameras = {(name.partition("/")[0], split) for name, split in splits.items()}
    assert Counter(split for _, split in cameras) == {"train": 7, "val": 2, "test": 1}
    divided = {(name.partition("/")[0], split) for name, split in assign_splits(FRAMES, {"val": 0.2}).items()}
    assert len(divided) > len(cameras)


def test_groups_of_unequal_size_come_as_near_as_the_order_allows() -> None:
    """No group but the one of 20 fits into a fifth; where none fits, the nearest one is taken."""
    names = [f"{group}{i}" for group, size in {"a": 50, "b": 30, "c": 20}.items() for i in range(size)]
    assert Counter(assign_splits(names, {"val": 0.2}, group=".").values())["val"] == 20
    assert Counter(assign_splits(names, {"val": 0.1}, group=".").values())["val"] == 20
    assert Counter(assign_splits(names, {"val": 0.02, "test": 0.02}, group=".").values()) == {
        "train": 50,
        "val": 20,
        "test": 30,
    }


def test_further_names_stay_together() -> None:
    together = [{"cam0/000", "cam1/000"}, {"cam1/007", "cam2/003"}]
    splits = assign_splits(FRAMES, {"val": 0.3}, group="parent", together=together)
    assert len({splits[f"cam{camera}/000"] for camera in range(3)}) == 1
    lone = assign_splits(FRAMES, {"val": 0.3}, together=[FRAMES[:40]])
    assert len({lone[name] for name in FRAMES[:40]}) == 1
    assert {lone[name] for name in FRAMES[40:]} == {"train", "val"}


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sets(st.text(min_size=1), min_size=3), st.text(min_size=1), st.floats(0.01, 0.6), st.integers())
def test_order_does_not_matter_and_one_more_image_moves_at_most_one(
    names: set[str], added: str, fraction: float, seed: int
) -> None:
    before = assign_splits(sorted(names), {"val": fraction}, seed)
    assert before == assign_splits(sorted(names, reverse=True), {"val": fraction}, seed)
    assert count_moved(before, assign_splits({*names, added}, {"val": fraction}, seed)) <= 1


def test_most_images_keep_their_split_when_many_are_added() -> None:
    """Random splits, the negative control, move about 0.46 of them: 1 - (0.7² + 0.2² + 0.1²)."""
    names = [f"image_{i}" for i in range(1500)]
    fractions = {"val": 0.2, "test": 0.1}
    before, after = (assign_splits(part, fractions) for part in (names[:1000], names))
    assert count_moved(before, after) < 50
    shuffled = dict(zip(names, random.Random(0).sample([*after.values()], len(names)), strict=True))
    assert count_moved(before, shuffled) > 400


def test_a_decomposed_name_is_the_same_name() -> None:
    names, decomposed = ["Ärger", "b", "c", "d"], ["A\u0308rger", "b", "c", "d"]
    for seed in range(8):
        one, other = (list(assign_splits(part, {"val": 0.5}, seed).values()) for part in (names, decomposed))
        assert one == other


@pytest.mark.parametrize(
    ("names", "fractions", "group", "message"),
    [
        (
            "ab",
            {"val": 0.2, "test": 0.2},
            None,
            "2 images are too few for train, val and test; each needs at least one",
        ),
        ("", {"val": 0.2}, None, "0 images are too few for train and val"),
        (
            FRAMES,
            {"val": 0.2},
            "cam",
            r"group: 'cam' makes 1 group of 200 images and the first is 'cam', too few for train and val; each split needs",
        ),
        ("abc", {"val": 0.2}, "parent", "group: 'parent' makes 1 group of 3 images, too few for train and val; each"),
        (FRAMES, {"val": 0.2}, r"\d+", r"group: '\\d\+' does not match the start of 'cam0/000' and 199 more; give"),
        (FRAMES, {"val": 0.2}, "(cam", r"group: '\(cam' is no regular expression \(missing \), .*; give one such as"),
        ("abc", {"val": 0.0}, None, "the parts of the images are val: 0; give parts above 0 whose sum is below 1"),
        ("abc", {"val": 0.6, "test": 0.4}, None, "the parts of the images are val: 0.6, test: 0.4; give"),
        ("abc", {}, None, "no split gets a part of the images; give one such as val: 0.2"),
    ],
)
def test_what_is_impossible_is_refused(
    names: list[str], fractions: dict[str, float], group: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        assign_splits(names, fractions, group=group)


def test_too_few_groups_by_near_duplicates() -> None:
    with pytest.raises(
        UserError, match="near_duplicates makes 1 group of 200 images and the first is 'cam0/000', too few"
    ):
        assign_splits(FRAMES, {"val": 0.2}, together=[FRAMES])
