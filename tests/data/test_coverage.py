"""Classes that no label holds, against plain counts, and the sentences that name them with their cure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.data import coverage
from segkd.data.coverage import (
    count_unless_covered,
    explain_absent,
    find_absent_classes,
    find_class_issues,
    merge_counts,
)
from segkd.data.folder import Folder
from segkd.data.integrity import Issue, inspect_sample
from segkd.data.statistics import count_classes
from segkd.data.streets import Streets

Labels = dict[str, list[npt.NDArray[np.uint8]]]
BY_DEFAULT = "which is ignored unless classes.yaml says otherwise"
WRITTEN = "which classes.yaml ignores"
BACKGROUND_LESION = [{"name": "background"}, {"name": "lesion"}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_labels(root: Path, arrays_of_splits: Labels, classes: Sequence[Any], **keys: object) -> None:
    """Write a `dataset=folder` of black images with these labels, grayscale or RGB."""
    for split, arrays in arrays_of_splits.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for index, label in enumerate(arrays):
            image = np.full((*label.shape[:2], 3), index, np.uint8)
            assert cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
            assert cv2.imwrite(
                str(root / "labels" / split / f"{index}.png"), label[..., ::-1] if label.ndim > 2 else label
            )
    size = list(arrays_of_splits["train"][0].shape[:2])
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": list(classes), "size": size, **keys}))


def make_label(**shares: int) -> npt.NDArray[np.uint8]:
    """Return a label of 10×10 pixels, so many of each id, as in `make_label(_0=90, _255=10)`."""
    ids = np.array([int(name[1:]) for name in shares], np.uint8)
    return ids.repeat([*shares.values()]).reshape(10, 10)


def find_issues(root: Path, splits: Sequence[str] = ("train", "val"), is_complete: bool = True) -> list[Issue]:
    """Return what `segkd.check` finds on classes."""
    datasets = {name: Folder(root, name) for name in splits}
    samples = {name: [inspect_sample(data, i) for i in range(len(data))] for name, data in datasets.items()}
    return list(find_class_issues(datasets[splits[0]], samples, is_complete))


def find_faults(root: Path) -> list[str]:
    return [issue.message for issue in find_issues(root) if issue.severity == "fault"]


def test_class_that_the_default_ignores_is_a_fault_with_its_cure(tmp_path: Path) -> None:
    """Masks of 0 and 255 with two classes and no `ignore`: the object is ignored, and the other class is all there is."""
    masks = {split: [make_label(_0=80, _255=20)] for split in ("train", "val")}
    write_labels(tmp_path, masks, BACKGROUND_LESION)
    assert find_faults(tmp_path) == [
        "lesion (id 1) is in no label of any split; 20.0 % of the pixels are 255, which is ignored unless classes.yaml says "
        "otherwise; if that is the class, give it `id: 255`; a class that is meant to be absent is left out of classes.yaml"
    ]
    write_labels(tmp_path, masks, [{"name": "background"}, {"name": "lesion", "id": 255}])
    assert find_issues(tmp_path) == []


@pytest.mark.parametrize(
    ("label", "keys", "expected"),
    [
        (
            make_label(_0=80, _255=20),
            {"ignore": [255]},
            f"20.0 % of the pixels are 255, {WRITTEN}; if that is the class, give it `id: 255` and write `ignore: []`",
        ),
        (
            make_label(_0=70, _255=20, _7=10),
            {"ignore": [7, 255]},
            f"20.0 % of the pixels are 255 and 10.0 % are 7, {WRITTEN}; if one of them is the class, give it that id and "
            "take that id out of `ignore`",
        ),
        (make_label(_0=100), {}, "the labels hold the id 0"),
    ],
    ids=["written", "two", "none"],
)
def test_sentence_names_what_is_ignored(
    tmp_path: Path, label: npt.NDArray[np.uint8], keys: dict[str, object], expected: str
) -> None:
    write_labels(tmp_path, {"train": [label], "val": [label]}, BACKGROUND_LESION, **keys)
    (fault,) = find_faults(tmp_path)
    assert fault.startswith(f"lesion (id 1) is in no label of any split; {expected}; ")


def test_sentence_names_colors(tmp_path: Path) -> None:
    label = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    classes = [{"name": "ground", "color": [0, 0, 0]}, {"name": "tree", "color": [0, 255, 0]}]
    write_labels(tmp_path, {"train": [label], "val": [label]}, classes, labels="colors", ignore=[[255, 255, 255]])
    (fault,) = find_faults(tmp_path)
    assert fault.startswith(
        "tree (color #00ff00) is in no label of any split; 50.0 % of the pixels are #ffffff, which classes.yaml ignores; "
        "if that is the class, give it that color and write `ignore: []`"
    )


def test_what_is_not_certain_is_a_note(tmp_path: Path) -> None:
    """Not certain: other splits, or damaged labels, may hold the class; a class of `val` alone cannot be learned."""
    without, both = make_label(_0=97, _255=3), make_label(_0=90, _1=10)
    write_labels(tmp_path, {"train": [without], "val": [both], "test": [both]}, BACKGROUND_LESION)
    splits = ("train", "val", "test")
    assert [(issue.severity, issue.message) for issue in find_issues(tmp_path, splits)] == [
        (
            "note",
            f"lesion (id 1) is in no label of train, only in those of val and test; 3.0 % of the pixels are 255, {BY_DEFAULT}; "
            "if that is the class, give it `id: 255`",
        )
    ]
    (note,) = find_issues(tmp_path, ("train",), is_complete=False)
    assert (note.severity, note.message.partition(";")[0]) == ("note", "lesion (id 1) is in no label of train")
    write_labels(tmp_path, {"train": [without, both], "val": [without]}, BACKGROUND_LESION)
    assert find_issues(tmp_path) == []
    (tmp_path / "labels/train/1.png").write_bytes(b"damaged")
    (note,) = find_issues(tmp_path)
    assert (note.severity, note.message.partition(";")[0]) == (
        "note", "lesion (id 1) is in none of the 2 labels that can be read",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("label", "keys", "expected"),
    [
        (
            make_label(_0=80, _1=10, _255=10),
            {},
            f"10.0 % of the pixels are 255, {BY_DEFAULT}; if that is a class, give it `id: 255`; otherwise write `ignore: [255]`",
        ),
        (make_label(_0=80, _1=10, _255=10), {"ignore": [255]}, None),
        (make_label(_0=80, _1=16, _255=4), {}, None),
        (
            make_label(_1=20, _2=20, _0=60),
            {"ignore": [0]},
            f"60.0 % of the pixels are 0, {WRITTEN}; if that is a class, give it `id: 0` and write `ignore: []`",
        ),
        (make_label(_1=40, _2=20, _0=40), {"ignore": [0]}, None),
    ],
    ids=["default", "written", "outlines", "most", "less"],
)
def test_many_ignored_pixels_are_noted(
    tmp_path: Path, label: npt.NDArray[np.uint8], keys: dict[str, object], expected: str | None
) -> None:
    ids = [value for value in (0, 1, 2) if (label == value).any() and value not in keys.get("ignore", [])]  # type: ignore[operator]
    classes = [{"name": f"class {value}", "id": value} for value in ids]
    empty = np.full_like(label, 255 if "ignore" not in keys else keys["ignore"][0])  # type: ignore[index]
    write_labels(tmp_path, {"train": [label, empty], "val": [label]}, classes, **keys)
    issues = [(issue.severity, issue.message) for issue in find_issues(tmp_path)]
    assert issues == ([] if expected is None else [("note", expected)])


@given(st.data())
@settings(max_examples=25, derandomize=True, deadline=None)
def test_absent_classes_equal_those_of_a_plain_count(data: st.DataObject) -> None:
    """For random tables and labels: the fault of `check`, and the scan before a training, whatever it has read."""
    ids = data.draw(st.lists(st.integers(0, 255), min_size=3, max_size=7, unique=True))
    num_classes = data.draw(st.integers(2, len(ids) - 1))
    values = st.lists(st.sampled_from(ids), min_size=12, max_size=12)
    labels = {
        split: [np.array(data.draw(values), np.uint8).reshape(3, 4) for _ in range(data.draw(st.integers(1, 5)))]
        for split in ("train", "val")
    }
    classes = [{"name": f"c{i}", "id": value} for i, value in enumerate(ids[:num_classes])]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
        patch.setattr(coverage, "_MIN_PROBED", data.draw(st.integers(1, 5)))
        write_labels(Path(folder), labels, classes, ignore=ids[num_classes:])

        def find_absent(*splits: str) -> set[int]:
            pixels = np.concatenate([label.ravel() for split in splits for label in labels[split]])
            return {i for i in range(num_classes) if ids[i] not in pixels}

        faults = find_faults(Path(folder))
        named = {i for i in range(num_classes) for fault in faults if f"c{i} (id {ids[i]})" in fault}
        assert named == find_absent("train", "val")
        assert len(faults) == bool(named)
        for split, arrays in labels.items():
            dataset, wanted = Folder(folder, split), data.draw(st.sets(st.integers(0, num_classes - 1)))
            counts, is_empty = count_unless_covered(dataset), len(find_absent(split)) == num_classes
            assert (set() if counts is None else {*find_absent_classes(counts)}) == find_absent(split)
            assert (count_unless_covered(dataset, wanted) is None) == (not wanted & find_absent(split) and not is_empty)
            ignored = count_classes(dataset).ignored
            assert ignored == {str(i): n for i in ids[num_classes:] if (n := sum(int((a == i).sum()) for a in arrays))}


class CountedStreets(Streets):
    """Scenes that know which labels were read."""

    def __init__(self, images: int) -> None:
        super().__init__("train", images)
        self.read: list[int] = []

    def load_label(self, index: int) -> npt.NDArray[np.uint8]:
        self.read.append(index)
        return super().load_label(index)


def test_few_labels_are_read_where_they_hold_all_classes() -> None:
    dataset = CountedStreets(10_000)
    assert count_unless_covered(dataset) is None
    assert len(dataset.read) <= 16
    assert max(dataset.read) - min(dataset.read) > len(dataset.read)  # not neighbors, which look alike in a video


def test_counts_are_cached_and_cover_all_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that the last label alone holds is found; where it is nowhere, the second start reads few labels."""
    monkeypatch.setattr(coverage, "_MIN_PROBED", 2)
    empty, full = make_label(_0=100), make_label(_0=99, _1=1)
    write_labels(tmp_path, {"train": [empty] * 5 + [full] + [empty] * 4, "val": [empty] * 10}, BACKGROUND_LESION)
    assert count_unless_covered(Folder(tmp_path, "train")) is None
    for expected in (2 + 10, 2):
        dataset = Folder(tmp_path, "val")
        read, load = [], dataset.load_label_values
        monkeypatch.setattr(
            dataset, "load_label_values", lambda index, load=load, read=read: read.append(index) or load(index)
        )
        counts = count_unless_covered(dataset)
        assert counts is not None
        assert find_absent_classes(counts) == [1]
        assert len(read) == expected


def test_many_absent_classes_are_one_sentence() -> None:
    dataset = Streets("train", 4)
    counts = count_classes(dataset)
    assert merge_counts([counts, counts]).pixels == [2 * pixels for pixels in counts.pixels]
    nothing = counts._replace(pixels=[1, *[0] * 10, 1])
    assert explain_absent(dataset, [*range(1, 11)], "no label of train", nothing) == (
        "building, pole, road, pavement, tree, sign, fence, car and 2 more classes are in no label of train; "
        "50.0 % of the pixels are ignored"
    )
