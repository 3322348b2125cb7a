"""CamVid: its layout, held-out sequences, and, on the published data, the facts in its docstring."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data.camvid import CLASSES, CamVid
from segkd.types import IGNORE_INDEX
from tests.helpers.fake_datasets import write_camvid

COUNTS = {"train": 367, "val": 101, "test": 233, "trainval": 468}
# Percentage of all pixels: the eleven classes, then void.
PIXEL_PERCENT = {
    "train": (16.845, 23.259, 0.983, 31.658, 4.486, 9.724, 1.173, 1.127, 5.866, 0.639, 0.292, 3.948),
    "val": (9.177, 25.962, 0.564, 28.953, 8.719, 16.336, 0.892, 3.078, 1.746, 0.651, 2.217, 1.703),
    "test": (17.066, 24.605, 1.177, 25.807, 9.269, 11.253, 1.010, 1.184, 3.972, 0.634, 0.189, 3.833),
}
# Number of images that contain each class, then void.
IMAGES_WITH = {
    "train": (366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201, 367),
    "val": (101,) * 12,
    "test": (232, 233, 232, 233, 233, 228, 226, 90, 223, 222, 77, 232),
}


def test_finds_the_images_of_each_split(tmp_path: Path) -> None:
    write_camvid(tmp_path, train=3, val=2, test=1)
    datasets = {split: CamVid(tmp_path, split) for split in CamVid.splits}
    names = {split: [data.get_name(i) for i in range(len(data))] for split, data in datasets.items()}
    assert names["train"] == ["0001TP_000000", "0001TP_000001", "0001TP_000002"]
    assert names["val"] == ["0001TP_100000", "0001TP_100001"]
    assert names["test"] == ["0001TP_200000"]
    assert names["trainval"] == names["train"] + names["val"]


def test_maps_id_11_to_void_and_reads_images_as_rgb(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    red = np.zeros((2, 6, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "train/a.png"), red)
    cv2.imwrite(str(tmp_path / "trainannot/a.png"), np.arange(12, dtype=np.uint8).reshape(2, 6))
    image, label = CamVid(tmp_path, "train")[0]
    assert label.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, IGNORE_INDEX]]
    assert (image == (200, 0, 0)).all()


@pytest.mark.published
@pytest.mark.parametrize("split", PIXEL_PERCENT)
def test_published_labels_have_the_documented_frequencies(published_files: Path, split: str) -> None:
    data = CamVid(published_files / "data/camvid", split)
    labels = [data.load_label(i) for i in range(len(data))]
    assert {label.shape for label in labels} == {CamVid.size}
    counts = np.stack([np.bincount(np.minimum(label, 11).ravel(), minlength=12) for label in labels])
    assert counts.shape == (COUNTS[split], len(CLASSES) + 1)
    np.testing.assert_allclose(
        100 * counts.sum(0) / counts.sum(), PIXEL_PERCENT[split], atol=5.1e-4
    )  # published to three digits
    assert tuple((counts > 0).sum(0)) == IMAGES_WITH[split]


@pytest.mark.published
def test_published_splits_share_sequences(published_files: Path) -> None:
    """The docstring and the documentation describe how the splits overlap."""
    frames: dict[str, dict[str, list[int]]] = {}
    for split, count in COUNTS.items():
        data = CamVid(published_files / "data/camvid", split)
        assert len(data) == count
        by_sequence = frames.setdefault(split, {})
        for i in range(count):
            sequence, _, frame = data.get_name(i).partition("_")
            by_sequence.setdefault(sequence, []).append(int(frame.removeprefix("f")))
    counts = {
        split: {sequence: len(numbers) for sequence, numbers in by_sequence.items()}
        for split, by_sequence in frames.items()
    }
    assert counts["train"] == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert counts["val"] == {"0016E5": 101}
    assert counts["test"] == {"0001TP": 62, "Seq05VD": 171}
    assert min(frames["test"]["0001TP"]) - max(frames["train"]["0001TP"]) == 30
    assert frames["val"]["0016E5"] == list(range(7959, 8160, 2))  # at 30 frames per second
    assert min(frames["train"]["0016E5"]) < 7959 < 8159 < max(frames["train"]["0016E5"])
