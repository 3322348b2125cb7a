"""Faults of datasets are found, line by line, and told in a sentence; see tests/data/test_dataset_contract.py for segkd's own."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segkd.check_part.dataset_contract import CHECKS, check_dataset
from segkd.data.base import FileDataset, Sample, SegmentationDataset
from segkd.data.camvid import CamVid
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers.fake_datasets import write_camvid


class Pairs(SegmentationDataset):
    """A dataset without fault, in memory."""

    classes = ("road", "car")
    colors = ((128, 64, 128), (0, 0, 142))
    label_map = {0: 0, 1: 1, IGNORE_INDEX: IGNORE_INDEX}
    mean = (120.0, 121.0, 122.0)
    std = (60.0, 61.0, 62.0)
    splits = ("train", "val")
    size = (40, 60)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        return Sample(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), rng.integers(0, 2, (40, 60)).astype(np.uint8))

    def get_name(self, index: int) -> str:
        return f"{self.split}/{index}"


def change(**attributes: Any) -> Callable[..., SegmentationDataset]:
    """Return a class with other metadata, or other methods."""
    return type("Changed", (Pairs,), attributes)


def change_sample(image: Callable[[Any], Any] = lambda x: x, label: Callable[[Any], Any] = lambda x: x) -> Any:
    """Return a class whose samples are changed."""

    def get(self: Pairs, index: int) -> Sample:
        sample = Pairs.__getitem__(self, index)
        return Sample(image(sample.image), label(sample.label))

    return change(__getitem__=get)


class WithoutSuper(Pairs):
    def __init__(self, split: str) -> None:
        self.split = split


class Shuffled(Pairs):
    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.order = random.sample(range(100), 3)

    def get_name(self, index: int) -> str:
        return f"{self.split}/{self.order[index]}"


class OpenFile(Pairs):
    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.file = Path(__file__).open()  # noqa: SIM115


class OpenCV(CamVid):
    """Reads as most people do at first."""

    def __getitem__(self, index: int) -> Sample:
        image, label = (cv2.imread(str(path), flag) for path, flag in zip(self.files[index], (1, 0), strict=True))
        return Sample(image[:, :, ::-1], np.where(label == 11, 255, label).astype(np.uint8))

    def load_label(self, index: int) -> Any:
        return self[index].label


class Forgiving(CamVid):
    def check_complete(self) -> None:
        pass


def jitter(image: Any) -> Any:
    return np.random.randint(0, 256, image.shape, dtype=np.uint8)  # noqa: NPY002


# Line of the contract → datasets that break it, each with what must be said.
FAULTY: dict[str, list[tuple[Callable[..., SegmentationDataset], str]]] = {
    "splits": [
        (change(splits=("train", "test")), "splits has no val; name the folders or lists so"),
        (change(splits=("train", "val", "val")), "splits names val twice"),
        (change(combined_splits={"all": ("train", "val")}), "combined_splits names all, which splits lacks"),
        (change(__len__=lambda self: 0 if self.split == "val" else 3), "split 'val' has no images"),
    ],
    "classes": [
        (change(classes=("road", "road")), "two classes are called 'road'"),
        (change(classes=("road",)), "there is 1 class; give two or more"),
        (change(classes="road"), "classes is the text 'road'"),
    ],
    "colors": [
        (change(colors=((0, 0, 0),)), "there are 1 colors for 2 classes"),
        (change(colors=((0, 0, 0), (0, 0, 0))), r"two classes have the color \(0, 0, 0\)"),
        (change(colors=((0.5, 0, 0), (1, 0, 0))), r"the color \(0.5, 0, 0\) is not three integers of 0..255"),
    ],
    "label_map": [
        (change(label_map={0: 0, 255: 255}), "leads no value to the class car"),
        (change(label_map={0: 0, 1: 1}), "leads no value to void; add one that files do not hold, such as 255: 255"),
        (change(label_map={0: 0, 1: 1, 2: 2, 255: 255}), "leads to class 2, and the 2 classes are 0..1"),
        (change(label_map={0: 0, 1: 1, -1: 255}), "has the value -1; values in label files are integers of 0..255"),
    ],
    "statistics": [
        (change(mean=(0.4, 0.4, 0.5)), r"mean is \(0.4, 0.4, 0.5\), as of images in 0..1; images are in 0..255"),
        (change(std=(60.0, 0.0, 60.0)), r"std is \(60, 0, 60\); each value is between 0 and 255"),
        (change(mean=(120.0,)), "mean has 1 values; give three"),
    ],
    "size": [
        (change(size=(60, 40)), r"size is \(60, 40\), and the first images are 40 high and 60 wide"),
        (change(size=(40,)), r"size is \(40,\); give height and width"),
    ],
    "unknown_split": [(WithoutSuper, "a split that does not exist is opened")],
    "samples": [
        (change_sample(image=lambda x: x.astype(np.float32) / 255), "the image of train/0 of train is float32; return uint8"),
        (change_sample(label=lambda x: x.astype(np.int64)), "the label of train/0 of train is int64"),
        (change_sample(image=lambda x: x.tolist()), "the image of train/0 of train is a list; return a NumPy array"),
        (change_sample(image=lambda x: x[:, :, 0]), r"has the shape \(40, 60\); return height × width × 3"),
        (change_sample(image=lambda x: x.transpose(2, 0, 1)), r"has the shape \(3, 40, 60\); return height × width × 3"),
        (change_sample(label=lambda x: x.T), r"has the shape \(60, 40\) and the image \(40, 60\)"),
        (change_sample(label=lambda x: x + 33), "holds 33, 34; return classes 0..1, and 255 for void"),
    ],
    "names": [
        (change(get_name=lambda self, i: str(i)), "image 0 of train and image 0 of val are both called '0'"),
        (change(get_name=lambda self, i: i), "the name of image 0 of train is 0; return a text"),
    ],
    "repeatable_reads": [
        (Shuffled, "train has other images or another order when it is opened again; sort the files"),
        (change_sample(image=jitter), "train/0 of train has other pixels when it is opened again; augmentation is not part"),
    ],
    "labels_alone": [(change(load_label=lambda self, i: self[i].label + 1), "load_label gives another label")],
    "workers": [(OpenFile, "cannot be sent to the workers of a loader: TypeError: cannot pickle")],
    "missing_label": [(Forgiving, "check_complete accepts an image without a label")],
    "damaged_file": [(OpenCV, rf"a damaged image ends in TypeError: .*\({__file__}:\d+\); read files with")],
}  # fmt: skip


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("camvid")
    write_camvid(root)
    return root


def test_dataset_without_fault_keeps_every_line() -> None:
    findings = check_dataset(Pairs, [line for line in CHECKS if line != "workers"])
    assert {finding.line for finding in findings if finding.verdict != "keeps"} == {"missing_label", "damaged_file"}


@pytest.mark.parametrize(("line", "index"), [(line, i) for line in CHECKS for i in range(len(FAULTY[line]))])
def test_faults_are_detected_in_a_sentence(line: str, index: int, camvid: Path) -> None:
    build, sentence = FAULTY[line][index]
    is_of_files = isinstance(build, type) and issubclass(build, FileDataset)
    (finding,) = check_dataset(partial(build, camvid) if is_of_files else build, [line])
    assert finding.verdict == "FAILS"
    assert re.search(sentence, finding.detail), finding.detail


def test_what_is_no_dataset_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"list is no dataset; make it a subclass of segkd.data.base.SegmentationDataset"
    ):
        check_dataset(lambda split: [])  # type: ignore[arg-type,return-value]
