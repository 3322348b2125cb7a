"""CamVid's layout, and, on the data itself, all that its docstring says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data.camvid import CLASSES, CamVid
from segkd.types import IGNORE_INDEX
from tests.helpers.fake_datasets import write_camvid

COUNTS = {"train": 367, "val": 101, "test": 233, "trainval": 468}
# Per cent of all pixels: the eleven classes, and void.
SHARES = {
    "train": (16.845, 23.259, 0.983, 31.658, 4.486, 9.724, 1.173, 1.127, 5.866, 0.639, 0.292, 3.948),
    "val": (9.177, 25.962, 0.564, 28.953, 8.719, 16.336, 0.892, 3.078, 1.746, 0.651, 2.217, 1.703),
    "test": (17.066, 24.605, 1.177, 25.807, 9.269, 11.253, 1.010, 1.184, 3.972, 0.634, 0.189, 3.833),
}
# In how many images they are.
IMAGES = {
    "train": (366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201, 367),
    "val": (101,) * 12,
    "test": (232, 233, 232, 233, 233, 228, 226, 90, 223, 222, 77, 232),
}


def test_layout(tmp_path: Path) -> None:
    write_camvid(tmp_path, train=3, val=2, test=1)
    opened = {split: CamVid(tmp_path, split) for split in CamVid.splits}
    names = {split: [data.name(i) for i in range(len(data))] for split, data in opened.items()}
    assert names["train"] == ["0001TP_000000", "0001TP_000001", "0001TP_000002"]
    assert names["val"] == ["0001TP_100000", "0001TP_100001"]
    assert names["test"] == ["0001TP_200000"]
    assert names["trainval"] == names["train"] + names["val"]


def test_id_11_is_void_and_images_are_rgb(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    red = np.zeros((2, 6, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes blue first
    cv2.imwrite(str(tmp_path / "train/a.png"), red)
    cv2.imwrite(str(tmp_path / "trainannot/a.png"), np.arange(12, dtype=np.uint8).reshape(2, 6))
    image, label = CamVid(tmp_path, "train")[0]
    assert label.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, IGNORE_INDEX]]
    assert (image == (200, 0, 0)).all()


@pytest.mark.published
@pytest.mark.parametrize("split", SHARES)
def test_labels_themselves(published_files: Path, split: str) -> None:
    data = CamVid(published_files / "data/camvid", split)
    counts = np.stack([np.bincount(np.minimum(data[i].label, 11).ravel(), minlength=12) for i in range(len(data))])
    assert counts.shape == (COUNTS[split], len(CLASSES) + 1)
    np.testing.assert_allclose(100 * counts.sum(0) / counts.sum(), SHARES[split], atol=5.1e-4)  # given to three digits
    assert tuple((counts > 0).sum(0)) == IMAGES[split]


@pytest.mark.published
def test_statistics_themselves(published_files: Path) -> None:
    data = CamVid(published_files / "data/camvid", "train")
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for i in range(len(data)):
        image = data[i].image
        assert image.shape == (*CamVid.size, 3)
        pixels = image.reshape(-1, 3).astype(np.float64)
        sums, squares, count = sums + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = sums / count
    np.testing.assert_allclose(mean, CamVid.mean, atol=5.1e-4)
    np.testing.assert_allclose(np.sqrt(squares / count - mean**2), CamVid.std, atol=5.1e-4)


@pytest.mark.published
def test_splits_are_not_independent(published_files: Path) -> None:
    """What the docstring, and the README, say of them."""
    frames: dict[str, dict[str, list[int]]] = {}
    for split, count in COUNTS.items():
        data = CamVid(published_files / "data/camvid", split)
        assert len(data) == count
        drives = frames.setdefault(split, {})
        for i in range(count):
            drive, _, frame = data.name(i).partition("_")
            drives.setdefault(drive, []).append(int(frame.removeprefix("f")))
    counts = {split: {drive: len(f) for drive, f in drives.items()} for split, drives in frames.items()}
    assert counts["train"] == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert counts["val"] == {"0016E5": 101}
    assert counts["test"] == {"0001TP": 62, "Seq05VD": 171}
    assert min(frames["test"]["0001TP"]) - max(frames["train"]["0001TP"]) == 30
    assert frames["val"]["0016E5"] == list(range(7959, 8160, 2))  # of 30 a second
    assert min(frames["train"]["0016E5"]) < 7959 < 8159 < max(frames["train"]["0016E5"])
