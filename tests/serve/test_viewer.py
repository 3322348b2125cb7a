"""Predictions for an upload, worked by hand with networks that predict the stronger of two colors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.predict.palette import Palette
from segkd.predict.sources import open_source
from segkd.predict.writers import write_video
from segkd.serve import viewer as viewer_module
from segkd.serve.viewer import Viewer

TWO_CLASSES = Palette("Two", {"red": (200, 0, 0), "blue": (0, 0, 100)})


class StrongerColor(SegmentationModel):
    """Predict class 0 where red is stronger than blue, 1 elsewhere; if `inverted`, the opposite."""

    min_size = 1

    def __init__(self, inverted: bool = False) -> None:
        super().__init__(2, Normalization((0, 0, 0), (1, 1, 1)), {})
        self.channels = [2, 0] if inverted else [0, 2]
        self.unused = nn.Parameter(torch.zeros(()))  # tells the device

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return images[:, self.channels], {}


VIEWER = Viewer(
    {"student": StrongerColor(), "inverse": StrongerColor(inverted=True)},
    TWO_CLASSES,
    opacity=1.0,
    max_side=64,
    max_frames=3,
)


@pytest.fixture
def scene() -> np.ndarray:
    """Red on the left, blue on the right; 20 × 40."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :20, 0] = 250
    image[:, 20:, 2] = 250
    return image


@pytest.fixture
def upload(tmp_path: Path, scene: np.ndarray) -> Path:
    Image.fromarray(scene).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_images_show_the_prediction_of_each_network(upload: Path, scene: np.ndarray, tmp_path: Path) -> None:
    result = VIEWER.predict_file(upload, tmp_path / "predicted.mp4")
    assert [*result.images] == ["image", "student", "inverse"]
    assert np.array_equal(result.images["image"], scene)
    student, inverse = result.images["student"], result.images["inverse"]
    assert student[0, 0].tolist() == inverse[0, -1].tolist() == [200, 0, 0]
    assert student[0, -1].tolist() == inverse[0, 0].tolist() == [0, 0, 100]
    assert result.video is None
    assert not (tmp_path / "predicted.mp4").exists()


def test_colors_are_blended_over_the_image(upload: Path, tmp_path: Path) -> None:
    result = VIEWER._replace(opacity=0.5).predict_file(upload, tmp_path / "predicted.mp4")
    assert result.images["student"][0, 0].tolist() == [225, 0, 0]


def test_milliseconds_are_the_median_of_each_network(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Starts and ends of student and inverse in turn: 1, 2, 9 s and 4, 5, 3 s.
    times = iter([0, 1, 1, 5, 5, 7, 7, 12, 12, 21, 21, 24])
    monkeypatch.setattr(viewer_module, "perf_counter", lambda: next(times))
    assert VIEWER.predict_file(upload, tmp_path / "predicted.mp4").milliseconds == {"student": 2000, "inverse": 4000}


def test_large_image_is_shrunk_and_small_one_kept(tmp_path: Path, scene: np.ndarray) -> None:
    for factor, width in ((1, 40), (4, 64)):
        Image.fromarray(scene.repeat(factor, 0).repeat(factor, 1)).save(tmp_path / "scene.png")
        images = VIEWER.predict_file(tmp_path / "scene.png", tmp_path / "predicted.mp4").images
        assert {image.shape for image in images.values()} == {(width // 2, width, 3)}


def test_clip_gives_a_video_side_by_side(tmp_path: Path, scene: np.ndarray) -> None:
    with write_video(tmp_path / "clip.mp4", 5) as write:
        for i in range(5):
            write(str(i), scene)
    result = VIEWER.predict_file(tmp_path / "clip.mp4", tmp_path / "predicted.mp4")
    assert result.video == tmp_path / "predicted.mp4"
    video = open_source(str(result.video))
    assert (len([*video]), video.rate) == (3, 5)  # max_frames=3
    assert result.milliseconds.keys() == {"student", "inverse"}
    image = next(iter(video)).image
    side = image.shape[1] // 3
    middle = [image[image.shape[0] // 2, side * i + side // 4].astype(int) for i in range(3)]
    for pixel, expected in zip(middle, ((250, 0, 0), (200, 0, 0), (0, 0, 100)), strict=True):
        assert np.abs(pixel - expected).max() < 25  # compression changes colors


INVALID_FILES = {
    "text.png": (b"no image", "text.png is not an image"),
    "empty.png": (b"", "empty.png is not an image"),
    "half.png": (None, "no frame of .*half.png can be read; give an image"),
    "text.mp4": (b"no video", "text.mp4 is neither an image"),
    "notes.txt": (b"no video either\n" * 50, "notes.txt is neither an image"),
    "without": (b"\x7fELF" + bytes(500), "without is neither an image"),
}


@pytest.mark.parametrize("name", INVALID_FILES)
def test_invalid_files_are_refused(name: str, tmp_path: Path, upload: Path) -> None:
    content, phrase = INVALID_FILES[name]
    path = tmp_path / name
    path.write_bytes(upload.read_bytes()[:60] if content is None else content)
    with pytest.raises(UserError, match=phrase):
        VIEWER.predict_file(path, tmp_path / "predicted.mp4")
    assert not (tmp_path / "predicted.mp4").exists()


def test_huge_image_is_refused_by_its_header(upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_module, "_MAX_PIXELS", 799)
    monkeypatch.setattr(Viewer, "_predict_frame", None)  # never called
    with pytest.raises(UserError, match="has 40×20 pixels, more than the limit of 0 million; shrink it"):
        VIEWER.predict_file(upload, tmp_path / "predicted.mp4")
