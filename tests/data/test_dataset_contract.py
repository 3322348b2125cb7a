"""The contract of a data set, for each configs/dataset/*.yaml, on tiny data in its true layout where it has files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from segkd.config.instantiate import build_spec, parse_spec
from segkd.config.paths import CONFIGS
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers import fake_datasets as fakes

NAMES = sorted(path.stem for path in (CONFIGS / "dataset").glob("*.yaml"))


def opened(name: str, root: Path, split: str) -> SegmentationDataset:
    node = parse_spec(yaml.safe_load((CONFIGS / "dataset" / f"{name}.yaml").read_text()))
    if "root" in node:
        assert node["root"] is None
        if not any(root.iterdir()):
            assert hasattr(fakes, f"write_{name}"), (
                f"write_{name}(root), tiny data in the true layout, is not in tests/fakes.py"
            )
            getattr(fakes, f"write_{name}")(root)
        node = {**node, "root": root}
    made = build_spec(node, split=split)
    assert isinstance(made, SegmentationDataset)
    return made


def contradictions(facts: SegmentationDataset) -> list[str]:
    """What is wrong with the facts of a data set."""
    count = len(facts.classes)
    checks = {
        "classes": len(set(facts.classes)) == count > 1,
        "colors": len(set(facts.colors)) == count and all(0 <= c <= 255 for color in facts.colors for c in color),
        "ids": all(0 <= label_id <= 255 for label_id in facts.ids),
        "ids reach each class, and void": set(facts.ids.values()) == {*range(count), IGNORE_INDEX},
        "statistics": all(0 < value < 255 for value in (*facts.mean, *facts.std)),
        "splits": {"train", "val"} <= set(facts.splits) and len(set(facts.splits)) == len(facts.splits),
        "splits together": {*facts.combined_splits, *sum(facts.combined_splits.values(), ())} <= set(facts.splits),
        "size": len(facts.size) == 2 and min(facts.size) > 0,
    }
    return [what for what, holds in checks.items() if not holds]


@pytest.mark.parametrize("name", NAMES)
def test_facts(name: str, tmp_path: Path) -> None:
    assert contradictions(opened(name, tmp_path, "train")) == []


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"classes": Streets.classes[:-1]}, ["colors", "ids reach each class, and void"]),
        ({"classes": (*Streets.classes[:-1], "sky")}, ["classes"]),
        ({"colors": (*Streets.colors[:-1], Streets.colors[0])}, ["colors"]),
        ({"ids": {i: i for i in range(11)}}, ["ids reach each class, and void"]),
        ({"mean": (0.4, 0.4, 0.0)}, ["statistics"]),
        ({"splits": ("train", "test")}, ["splits"]),
        ({"together": {"all": ("train", "val")}}, ["splits together"]),
    ],
)
def test_wrong_facts_are_found(wrong: dict[str, object], found: list[str]) -> None:
    assert contradictions(type("Wrong", (Streets,), wrong)("train")) == found


@pytest.mark.parametrize("name", NAMES)
def test_samples(name: str, tmp_path: Path) -> None:
    names = {}
    for split in ("train", "val"):
        data = opened(name, tmp_path, split)
        assert len(data) > 0
        names[split] = [data.name(i) for i in range(len(data))]
        image, label = data[0]
        assert image.dtype == label.dtype == np.uint8
        assert image.shape == (*label.shape, 3)
        assert set(np.unique(label)) <= {*range(len(data.classes)), IGNORE_INDEX}
        assert (data.label(0) == label).all()
        again = opened(name, tmp_path, split)[0]
        assert (again.image == image).all()
        assert (again.label == label).all()
    assert len({*names["train"], *names["val"]}) == len(names["train"]) + len(names["val"])
    with pytest.raises(UserError, match=f"{data.display_name()} has no split 'validation'; it has train, val"):
        opened(name, tmp_path, "validation")


@pytest.mark.parametrize("name", NAMES)
def test_every_class_of_a_fake_is_read(name: str, tmp_path: Path) -> None:
    """The fakes hold every id, so a table that leaves one out, or sends two to one class, shows."""
    data = opened(name, tmp_path, "train")
    if isinstance(data, Streets):
        return
    found = np.unique(np.concatenate([data.label(i).ravel() for i in range(len(data))]))
    assert found.tolist() == [*range(len(data.classes)), IGNORE_INDEX]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("streets", "packed")])
def test_what_is_missing(name: str, tmp_path: Path) -> None:
    """An image without a label, a label without an image, and no files at all."""
    data = opened(name, tmp_path, "train")
    assert isinstance(data, FileDataset)
    (image, label), *_ = data.files
    assert data.labels_without_image("train") == []
    image.rename(tmp_path / "aside")
    assert type(data)(tmp_path, "train", complete=False).labels_without_image("train") == [label]
    (tmp_path / "aside").rename(image)
    label.unlink()
    with pytest.raises(
        UserError, match=f"1 of {len(data)} images of .* have no label; the first that is missing is {label}"
    ):
        type(data)(tmp_path, "train")
    with pytest.raises(UserError, match=r"needs dataset\.root=DIR"):
        type(data)(None, "train")
