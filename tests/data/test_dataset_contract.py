"""The dataset contract, for each configs/dataset/*.yaml, on tiny fake data in the dataset's own layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segkd.check_part.dataset_contract import CHECKS, check_dataset
from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers import fake_datasets

NAMES = sorted(path.stem for path in (CONFIGS / "dataset").glob("*.yaml"))
OpenSplit = Callable[..., SegmentationDataset]


def open_fake(name: str, root: Path, split: str, **arguments: Any) -> SegmentationDataset:
    """Open a split of a dataset's config; its files are written to `root` if that is empty."""
    spec = parse_spec(yaml.safe_load((CONFIGS / "dataset" / f"{name}.yaml").read_text()))
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
    return partial(open_fake, request.param, root)


def test_dataset_keeps_the_contract(open_split: OpenSplit) -> None:
    findings = check_dataset(open_split)
    assert [finding.line for finding in findings] == [*CHECKS]
    assert [str(finding) for finding in findings if finding.is_fault] == []
    is_of_files = isinstance(open_split(split="train"), FileDataset)
    assert all(finding.verdict == "keeps" for finding in findings) == is_of_files


def test_every_class_of_the_fake_data_is_read(open_split: OpenSplit) -> None:
    """The fake data contain every id, so a label map that omits one, or merges two, is detected."""
    dataset = open_split(split="train")
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
