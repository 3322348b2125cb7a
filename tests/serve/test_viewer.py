"""What networks see in an upload: worked by hand with networks that say one class, or which of two colours is stronger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.predict.rendering import Palette
from segkd.predict.sources import open_source
from segkd.predict.writers import write_video
from segkd.serve import viewer as sights
from segkd.serve.viewer import Viewer

TWO = Palette("Two", {"red": (200, 0, 0), "blue": (0, 0, 100)})


class Stronger(SegmentationModel):
    """Class 0 where red is stronger than blue, 1 elsewhere; or the other way round."""

    min_size = 1

    def __init__(self, turned: bool = False) -> None:
        super().__init__(2, Normalization((0, 0, 0), (1, 1, 1)), {})
        self.channels = [2, 0] if turned else [0, 2]
        self.unused = nn.Parameter(torch.zeros(()))  # says on which device it is

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return images[:, self.channels], {}


VIEWER = Viewer({"student": Stronger(), "contrary": Stronger(turned=True)}, TWO, opacity=1.0, max_side=64, frames=3)


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


def test_pictures_are_what_each_network_says(upload: Path, scene: np.ndarray, tmp_path: Path) -> None:
    sight = VIEWER.predict_file(upload, tmp_path / "film.mp4")
    assert [*sight.pictures] == ["image", "student", "contrary"]
    assert np.array_equal(sight.pictures["image"], scene)
    student, contrary = sight.pictures["student"], sight.pictures["contrary"]
    assert student[0, 0].tolist() == contrary[0, -1].tolist() == [200, 0, 0]
    assert student[0, -1].tolist() == contrary[0, 0].tolist() == [0, 0, 100]
    assert sight.film is None
    assert not (tmp_path / "film.mp4").exists()


def test_colours_lie_over_the_image(upload: Path, tmp_path: Path) -> None:
    sight = VIEWER._replace(opacity=0.5).predict_file(upload, tmp_path / "film.mp4")
    assert sight.pictures["student"][0, 0].tolist() == [225, 0, 0]


def test_milliseconds_are_each_networks_own_median(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Began and ended, student and contrary in turn: 1, 2, 9 s and 4, 5, 3 s.
    times = iter([0, 1, 1, 5, 5, 7, 7, 12, 12, 21, 21, 24])
    monkeypatch.setattr(sights, "perf_counter", lambda: next(times))
    assert VIEWER.predict_file(upload, tmp_path / "film.mp4").milliseconds == {"student": 2000, "contrary": 4000}


def test_a_large_image_is_shrunk_and_a_small_one_stays(tmp_path: Path, scene: np.ndarray) -> None:
    for factor, width in ((1, 40), (4, 64)):
        Image.fromarray(scene.repeat(factor, 0).repeat(factor, 1)).save(tmp_path / "scene.png")
        pictures = VIEWER.predict_file(tmp_path / "scene.png", tmp_path / "film.mp4").pictures
        assert {picture.shape for picture in pictures.values()} == {(width // 2, width, 3)}


def test_of_a_clip_a_film_side_by_side(tmp_path: Path, scene: np.ndarray) -> None:
    with write_video(tmp_path / "clip.mp4", 5) as write:
        for i in range(5):
            write(str(i), scene)
    sight = VIEWER.predict_file(tmp_path / "clip.mp4", tmp_path / "film.mp4")
    assert sight.film == tmp_path / "film.mp4"
    shown = open_source(str(sight.film))
    assert (len([*shown]), shown.rate) == (3, 5)  # frames=3
    assert sight.milliseconds.keys() == {"student", "contrary"}
    image = next(iter(shown)).image
    side = image.shape[1] // 3
    middle = [image[image.shape[0] // 2, side * i + side // 4].astype(int) for i in range(3)]
    for found, expected in zip(middle, ((250, 0, 0), (200, 0, 0), (0, 0, 100)), strict=True):
        assert np.abs(found - expected).max() < 25  # what a film spends on colour


FAULTS = {
    "text.png": (b"no image", "text.png is no image"),
    "empty.png": (b"", "empty.png is no image"),
    "half.png": (None, "nothing in .*half.png can be read; give an image"),
    "text.mp4": (b"no film", "text.mp4 is neither an image"),
    "notes.txt": (b"no film either\n" * 50, "notes.txt is neither an image"),
    "without": (b"\x7fELF" + bytes(500), "without is neither an image"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_image_and_no_film(name: str, tmp_path: Path, upload: Path) -> None:
    content, said = FAULTS[name]
    path = tmp_path / name
    path.write_bytes(upload.read_bytes()[:60] if content is None else content)
    with pytest.raises(UserError, match=said):
        VIEWER.predict_file(path, tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()


def test_an_image_that_would_fill_the_memory_is_refused_by_its_header(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sights, "_MOST_PIXELS", 799)
    monkeypatch.setattr(Viewer, "_predict_frame", None)  # it comes to no look
    with pytest.raises(UserError, match="has 40×20 pixels, more than the 0 million taken here; shrink it"):
        VIEWER.predict_file(upload, tmp_path / "film.mp4")
