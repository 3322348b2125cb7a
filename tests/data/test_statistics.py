"""Statistics and class weights, against values computed by hand and, on CamVid, against published ones."""

from __future__ import annotations

from math import log
from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data.base import Sample, SegmentationDataset
from segkd.data.camvid import CamVid
from segkd.data.statistics import ClassCounts, compute_class_weights, compute_color_statistics, count_classes
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers.fake_datasets import write_camvid

# SegNet's definition on CamVid's training split; computed from frequencies rounded to six digits.
MEDIAN_FREQUENCY = (0.2793, 0.2017, 4.7866, 0.1490, 1.0, 0.4217, 3.8468, 1.9736, 0.7890, 6.3744, 8.8595)


class TwoImages(Streets):
    """Two images of four pixels, and three classes of which the last has none."""

    classes = ("common", "rare", "absent")
    LABELS = ([[0, 0], [0, 1]], [[0, 0, IGNORE_INDEX, IGNORE_INDEX]])

    def __init__(self) -> None:
        SegmentationDataset.__init__(self, "train")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        label = np.array(self.LABELS[index], np.uint8)
        image = np.zeros((*label.shape, 3), np.uint8)
        image[..., 0] = 10 if index else 30
        image[..., 2] = 255 * (label == 0)
        return Sample(image, label)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_class_counts_and_weights_by_hand() -> None:
    counts = count_classes(TwoImages())
    assert counts == ClassCounts([5, 1, 0, 2], [2, 1, 0, 1], [8, 4, 0, 4])
    # f = 5/8, 1/4 and, for void, 1/2
    assert compute_class_weights("median_frequency", counts) == pytest.approx([0.4375 / 0.625, 0.4375 / 0.25, 0])
    assert compute_class_weights("median_frequency", counts, void=True) == pytest.approx(
        [0.5 / 0.625, 0.5 / 0.25, 0, 1]
    )
    assert compute_class_weights("enet", counts) == pytest.approx(
        [1 / log(1.02 + 5 / 6), 1 / log(1.02 + 1 / 6), 1 / log(1.02)]
    )
    assert compute_class_weights("enet", counts, void=True)[3] == pytest.approx(1 / log(1.02 + 2 / 8))
    with pytest.raises(UserError, match="no pixel of the training split is labeled"):
        compute_class_weights("enet", ClassCounts([0, 0, 0, 8], [0, 0, 0, 2], [0, 0, 0, 8]))


def test_color_statistics_by_hand() -> None:
    mean, std = compute_color_statistics(TwoImages())
    assert mean == pytest.approx([20, 0, 255 * 5 / 8])
    assert std == pytest.approx(
        [10, 0, 255 * (5 / 8 * 3 / 8) ** 0.5]
    )  # over all pixels; red is constant within an image


def test_cache_depends_on_file_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    write_camvid(tmp_path / "a", size=(8, 24))
    write_camvid(tmp_path / "b", size=(8, 24))
    data = CamVid(tmp_path / "a", "train")
    first, first_colors = count_classes(data), compute_color_statistics(data)
    assert first.pixels == [4 * 16] * 12
    assert first.ignored == {"11": 4 * 16}

    def refuse_decoding(*_: object) -> None:
        raise AssertionError("decoded")

    def is_decoded(root: str) -> bool:
        data = CamVid(tmp_path / root, "train")
        with monkeypatch.context() as patch:
            patch.setattr(CamVid, "load_label_values", refuse_decoding)
            try:
                assert count_classes(data) == first
                assert compute_color_statistics(data) == first_colors
            except AssertionError as error:
                return "decoded" in str(error)
        return False

    assert not is_decoded("a")
    assert not is_decoded("b")  # a copy
    label = CamVid(tmp_path / "b", "train").files[0][1]
    cv2.imwrite(str(label), np.full((8, 24), 3, np.uint8))
    assert is_decoded("b")
    assert count_classes(CamVid(tmp_path / "b", "train")).pixels[3] == 3 * 16 + 8 * 24
    for cached in cache.rglob("*.json"):
        cached.write_text(cached.read_text()[:-9])  # truncated: computed again and replaced
    assert is_decoded("a")
    assert count_classes(CamVid(tmp_path / "a", "train")) == first
    for cached in cache.rglob("*.json"):
        cached.unlink()
    (cache / "segkd/statistics").rmdir()
    (cache / "segkd/statistics").touch()  # the cache cannot be written
    assert count_classes(CamVid(tmp_path / "a", "train")) == first


@pytest.mark.published
def test_published_camvid_statistics_and_weights(published_files: Path) -> None:
    data = CamVid(published_files / "data/camvid", "train")
    counts = count_classes(data)
    np.testing.assert_allclose(compute_class_weights("median_frequency", counts), MEDIAN_FREQUENCY, rtol=2e-4)
    frequencies = np.round(np.array(counts.pixels) / counts.pixels_of_images, 6)[:-1]
    assert tuple(np.round(np.median(frequencies) / frequencies, 4)) == MEDIAN_FREQUENCY
    mean, std = compute_color_statistics(data)
    assert tuple(np.round(mean, 3)) == CamVid.mean
    assert tuple(np.round(std, 3)) == CamVid.std
