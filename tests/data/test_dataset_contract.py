"""The contract of a data set, for each configs/dataset/*.yaml, on tiny data in its true layout where it has files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import fakes
from segkd.cli import CONFIGS
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.nodes import construct, fits, target_of
from segkd.types import IGNORE_INDEX

NAMES = sorted(path.stem for path in (CONFIGS / "dataset").glob("*.yaml"))


def facts(name: str) -> tuple[dict[str, object], type[SegmentationDataset]]:
    node = fits(yaml.safe_load((CONFIGS / "dataset" / f"{name}.yaml").read_text()))
    return node, target_of(node)


def contradictions(facts: type[SegmentationDataset]) -> list[str]:
    """What is wrong with the facts of a data set."""
    count = len(facts.classes)
    checks = {
        "classes": len(set(facts.classes)) == count > 1,
        "colors": len(set(facts.colors)) == count and all(0 <= c <= 255 for color in facts.colors for c in color),
        "ids": all(0 <= label_id <= 255 for label_id in facts.ids),
        "ids reach each class, and void": set(facts.ids.values()) == {*range(count), IGNORE_INDEX},
        "statistics": all(0 < value < 255 for value in (*facts.mean, *facts.std)),
        "splits": {"train", "val"} <= set(facts.splits) and len(set(facts.splits)) == len(facts.splits),
        "size": len(facts.size) == 2 and min(facts.size) > 0,
    }
    return [what for what, holds in checks.items() if not holds]


@pytest.mark.parametrize("name", NAMES)
def test_facts(name: str) -> None:
    node, kind = facts(name)
    assert contradictions(kind) == []
    assert not issubclass(kind, FileDataset) or node["root"] is None


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"classes": Streets.classes[:-1]}, ["colors", "ids reach each class, and void"]),
        ({"classes": (*Streets.classes[:-1], "sky")}, ["classes"]),
        ({"colors": (*Streets.colors[:-1], Streets.colors[0])}, ["colors"]),
        ({"ids": {i: i for i in range(11)}}, ["ids reach each class, and void"]),
        ({"mean": (0.4, 0.4, 0.0)}, ["statistics"]),
        ({"splits": ("train", "test")}, ["splits"]),
    ],
)
def test_wrong_facts_are_found(wrong: dict[str, object], found: list[str]) -> None:
    assert contradictions(type("Wrong", (Streets,), wrong)) == found


@pytest.mark.parametrize("name", NAMES)
def test_samples(name: str, tmp_path: Path) -> None:
    node, kind = facts(name)
    if issubclass(kind, FileDataset):
        getattr(fakes, f"write_{name}")(tmp_path)
        node = {**node, "root": tmp_path}
    names = {}
    for split in ("train", "val"):
        opened = construct(node, split=split)
        assert isinstance(opened, SegmentationDataset)
        assert len(opened) > 0
        names[split] = [opened.name(i) for i in range(len(opened))]
        image, label = opened[0]
        assert image.dtype == label.dtype == np.uint8
        assert image.shape == (*label.shape, 3)
        assert set(np.unique(label)) <= {*range(len(kind.classes)), IGNORE_INDEX}
        again = construct(node, split=split)[0]
        assert (again.image == image).all()
        assert (again.label == label).all()
    assert len({*names["train"], *names["val"]}) == len(names["train"]) + len(names["val"])
    with pytest.raises(UserError, match=f"{kind.title()} has no split 'validation'; it has train, val"):
        construct(node, split="validation")
