"""Frames of image files, films and cameras, whole and damaged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segkd.errors import UserError
from segkd.predict.sources import Camera, Frame, Video, open_source, require_av
from segkd.predict.writers import write_video

Array = npt.NDArray[np.uint8]

SCENE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)  # odd sides, and no two pixels alike
GREY = SCENE[..., 0]


KINDS: dict[str, tuple[Callable[[Path], object], Array]] = {
    "colour": (lambda path: Image.fromarray(SCENE).save(path), SCENE),
    "grey": (lambda path: Image.fromarray(GREY).save(path), GREY[..., None].repeat(3, 2)),
    "alpha": (lambda path: Image.fromarray(np.dstack([SCENE, GREY])).save(path), SCENE),
    "16 bits": (lambda path: cv2.imwrite(str(path), SCENE[..., ::-1].astype(np.uint16) * 257), SCENE),
    "one pixel": (lambda path: Image.fromarray(SCENE[:1, :1]).save(path), SCENE[:1, :1]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_all_kinds_are_rgb(kind: str, tmp_path: Path) -> None:
    write, expected = KINDS[kind]
    write(tmp_path / "a.png")
    (frame,) = open_source(str(tmp_path / "a.png"))
    assert frame.name == "a"
    assert frame.image.dtype == np.uint8
    assert np.array_equal(frame.image, expected)


def test_a_photograph_is_turned_as_the_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    photograph = np.zeros((16, 32, 3), np.uint8)
    photograph[:, 16:] = 250
    Image.fromarray(photograph).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = open_source(str(tmp_path / "a.jpg"))
    assert frame.image.shape == (32, 16, 3)
    assert np.abs(frame.image.astype(int) - np.rot90(photograph, -1)).max() < 10


def test_a_folder_in_order_and_what_is_damaged_is_skipped_and_named(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(SCENE).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    frames = open_source(str(tmp_path))
    assert [frame.name for frame in frames] == ["a/z", "b", "c"]
    assert (frames.length, frames.skipped) == (3, [])
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    frames = open_source(str(tmp_path))
    assert [frame.name for frame in frames] == ["a/z", "c"]
    assert frames.skipped == [str(tmp_path / "b.png")]


def test_names_that_would_collide_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(SCENE).save(tmp_path / name)
    with pytest.raises(UserError, match=r"a.jpg and .*a.png differ in their suffix alone"):
        open_source(str(tmp_path))


@pytest.fixture
def filmed(tmp_path: Path) -> tuple[Path, list[Array]]:
    """A film of 20 frames in which an edge moves."""
    shown = []
    for i in range(20):
        picture = np.full((64, 96, 3), (200, 30, 60), np.uint8)
        picture[:, 4 * i :] = (20, 200, 90)
        shown.append(picture)
    with write_video(tmp_path / "a.mp4", 10) as write:
        for picture in shown:
            write("", picture)
    return tmp_path / "a.mp4", shown


def test_a_film_gives_what_was_filmed(filmed: tuple[Path, list[Array]]) -> None:
    path, shown = filmed
    frames = open_source(str(path))
    assert isinstance(frames, Video)
    assert (frames.length, frames.rate) == (20, 10)
    seen: list[Frame] = [*frames]
    assert [frame.name for frame in seen] == [f"{i:06d}" for i in range(20)]
    for frame, picture in zip(seen, shown, strict=True):
        assert frame.image.shape == picture.shape
        assert np.abs(frame.image.astype(int) - picture).mean() < 4
    assert np.abs(seen[0].image.astype(int) - shown[-1]).mean() > 40
    assert frames.skipped == []


def test_a_frame_that_cannot_be_decoded_is_skipped_and_named(filmed: tuple[Path, list[Array]]) -> None:
    path, _ = filmed
    with require_av().open(str(path)) as container:
        tenth = [packet for packet in container.demux(video=0) if packet.size][10]
        place, size, time = tenth.pos, tenth.size, float(tenth.pts * tenth.time_base)
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    frames = open_source(str(path))
    assert len([*frames]) == 19
    assert frames.skipped == [f"{path} at {time:.2f} s"]


def test_a_phone_held_upright(filmed: tuple[Path, list[Array]]) -> None:
    path, shown = filmed
    content = path.read_bytes()
    one, none, last = (number.to_bytes(4, "big") for number in (0x10000, 0, 0x40000000))
    level = one + none * 3 + one + none * 3 + last
    clockwise = none + one + none + (-0x10000).to_bytes(4, "big", signed=True) + none * 4 + last
    track = content.index(level, content.index(b"tkhd"))
    path.write_bytes(content[:track] + clockwise + content[track + len(clockwise) :])
    first = next(iter(open_source(str(path)))).image
    assert first.shape == (96, 64, 3)
    fifth = [*open_source(str(path))][5].image
    assert np.abs(fifth.astype(int) - np.rot90(shown[5], -1)).mean() < 4


class FakeCapture:
    """A camera of five frames, during the third of which the user interrupts if told to."""

    interrupted = False

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, 0

    def isOpened(self) -> bool:
        return self.number == 2

    def get(self, _: int) -> float:
        return 25.0

    def read(self) -> tuple[bool, Array | None]:
        self.seen += 1
        if self.interrupted and self.seen == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return (True, SCENE[..., ::-1]) if self.seen <= 5 else (False, None)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(("interrupted", "expected"), [(False, 5), (True, 2)])
def test_a_camera_ends_with_its_frames_or_with_an_interrupt(
    interrupted: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "interrupted", interrupted)
    camera = open_source("camera:2")
    assert isinstance(camera, Camera)
    assert (camera.length, camera.rate) == (None, 25)
    before = signal.getsignal(signal.SIGINT)
    with camera.interruptible():
        seen = [*camera]
    assert signal.getsignal(signal.SIGINT) is before
    assert len(seen) == expected
    assert np.array_equal(seen[0].image, SCENE)


def test_there_is_no_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with pytest.raises(UserError, match="no camera 0 answers"):
        open_source("camera")


def test_a_text_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("FFmpeg draws the letters of a text file.\n" * 50)
    with require_av().open(str(tmp_path / "notes.txt")) as container:
        assert container.streams.video
    with pytest.raises(UserError, match=r"notes.txt is neither an image \(.*\) nor a film"):
        open_source(str(tmp_path / "notes.txt"))
