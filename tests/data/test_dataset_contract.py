"""The dataset contract, for each configs/dataset/*.yaml, on tiny fake data in the dataset's own layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers import fake_datasets

NAMES = sorted(path.stem for path in (CONFIGS / "dataset").glob("*.yaml"))
OpenSplit = Callable[[str], SegmentationDataset]


def open_fake(name: str, root: Path, split: str) -> SegmentationDataset:
    """Open a split of a dataset's config; its files are written to `root` if that is empty."""
    spec = parse_spec(yaml.safe_load((CONFIGS / "dataset" / f"{name}.yaml").read_text()))
    arguments: dict[str, Any] = {}
    if "root" in spec.arguments:
        assert spec.arguments["root"] is None
        if not any(root.iterdir()):
            assert hasattr(fake_datasets, f"write_{name}"), (
                f"tests/helpers/fake_datasets.py has no write_{name}(root), which writes tiny data in the dataset's layout"
            )
            getattr(fake_datasets, f"write_{name}")(root)
        arguments["root"] = root
    dataset = spec.build(split=split, **arguments)
    assert isinstance(dataset, SegmentationDataset)
    return dataset


@pytest.fixture(scope="module", params=NAMES)
def open_split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenSplit:
    """Open a split of each dataset in turn; its files are written once."""
    root = tmp_path_factory.mktemp(request.param)
    return lambda split: open_fake(request.param, root, split)


def find_contradictions(dataset: SegmentationDataset) -> list[str]:
    """Return the names of the checks that the metadata fail."""
    count = len(dataset.classes)
    channels = [channel for color in dataset.colors for channel in color]
    combined = {*dataset.combined_splits, *sum(dataset.combined_splits.values(), ())}
    checks = {
        "classes": len(set(dataset.classes)) == count > 1,
        "colors": len(set(dataset.colors)) == count and all(0 <= channel <= 255 for channel in channels),
        "ids": all(0 <= label_id <= 255 for label_id in dataset.label_map),
        "ids reach each class, and void": set(dataset.label_map.values()) == {*range(count), IGNORE_INDEX},
        "statistics": all(0 < value < 255 for value in (*dataset.mean, *dataset.std)),
        "splits": {"train", "val"} <= set(dataset.splits) and len(set(dataset.splits)) == len(dataset.splits),
        "combined splits": combined <= set(dataset.splits),
        "size": len(dataset.size) == 2 and min(dataset.size) > 0,
    }
    return [name for name, holds in checks.items() if not holds]


def test_metadata_are_consistent(open_split: OpenSplit) -> None:
    assert find_contradictions(open_split("train")) == []


@pytest.mark.parametrize(
    ("wrong", "failed"),
    [
        ({"classes": Streets.classes[:-1]}, ["colors", "ids reach each class, and void"]),
        ({"classes": (*Streets.classes[:-1], "sky")}, ["classes"]),
        ({"colors": (*Streets.colors[:-1], Streets.colors[0])}, ["colors"]),
        ({"label_map": {i: i for i in range(11)}}, ["ids reach each class, and void"]),
        ({"mean": (0.4, 0.4, 0.0)}, ["statistics"]),
        ({"splits": ("train", "test")}, ["splits"]),
        ({"combined_splits": {"all": ("train", "val")}}, ["combined splits"]),
    ],
)
def test_wrong_metadata_are_detected(wrong: dict[str, object], failed: list[str]) -> None:
    """Negative control of `find_contradictions`."""
    assert find_contradictions(type("Wrong", (Streets,), wrong)("train")) == failed


def test_samples_are_valid_and_reproducible(open_split: OpenSplit) -> None:
    names = []
    for split in ("train", "val"):
        dataset = open_split(split)
        assert len(dataset) > 0
        names += [dataset.get_name(i) for i in range(len(dataset))]
        image, label = dataset[0]
        assert image.dtype == label.dtype == np.uint8
        assert image.shape == (*label.shape, 3)
        assert set(np.unique(label)) <= {*range(len(dataset.classes)), IGNORE_INDEX}
        assert (dataset.load_label(0) == label).all()
        again = open_split(split)[0]
        assert (again.image == image).all()
        assert (again.label == label).all()
    assert len(set(names)) == len(names)
    with pytest.raises(UserError, match=f"{dataset.display_name} has no split 'validation'; it has train, val"):
        open_split("validation")


def test_every_class_of_the_fake_data_is_read(open_split: OpenSplit) -> None:
    """The fake data contain every id, so a label map that omits one, or merges two, is detected."""
    dataset = open_split("train")
    if isinstance(dataset, Streets):
        return
    classes = np.unique(np.concatenate([dataset.load_label(i).ravel() for i in range(len(dataset))]))
    assert classes.tolist() == [*range(len(dataset.classes)), IGNORE_INDEX]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("streets", "packed", "voc")])
def test_left_out_images_are_told(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An image in another format, and a hidden one, change nothing, and are told."""
    dataset = open_fake(name, tmp_path, "train")
    assert isinstance(dataset, FileDataset)
    image = dataset.files[0][0]
    for other in (image.with_suffix(".heic"), image.with_name(f"._{image.name}")):
        other.touch()
    again = open_fake(name, tmp_path, "train")
    assert isinstance(again, FileDataset)
    assert again.files == dataset.files
    assert [message.split()[0] for message in caplog.messages] == [
        str(image.with_suffix(".heic")),
        f"{image.parent}/._{image.name}",
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("streets", "packed")])
def test_missing_files_are_reported(name: str, tmp_path: Path) -> None:
    """An image without a label, a label without an image, and no files at all."""
    dataset = open_fake(name, tmp_path, "train")
    assert isinstance(dataset, FileDataset)
    (image, label), *_ = dataset.files
    assert dataset.find_labels_without_image("train") == []
    image.rename(tmp_path / "aside")
    assert type(dataset)(tmp_path, "train", complete=False).find_labels_without_image("train") == [label]
    (tmp_path / "aside").rename(image)
    label.unlink()
    with pytest.raises(
        UserError, match=f"1 of {len(dataset)} images of .* have no label; the first missing label is {label}"
    ):
        type(dataset)(tmp_path, "train")
    with pytest.raises(UserError, match=r"needs dataset\.root=DIR"):
        type(dataset)(None, "train")
