"""Frames of image files, videos and cameras, intact and damaged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.predict.sources import Camera, Frame, Video, open_source, require_av
from segkd.predict.writers import write_video

SCENE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)  # odd sides, and all pixels differ
GRAY = SCENE[..., 0]


KINDS: dict[str, tuple[Callable[[Path], object], Array]] = {
    "color": (lambda path: Image.fromarray(SCENE).save(path), SCENE),
    "gray": (lambda path: Image.fromarray(GRAY).save(path), GRAY[..., None].repeat(3, 2)),
    "alpha": (lambda path: Image.fromarray(np.dstack([SCENE, GRAY])).save(path), SCENE),
    "16 bits": (lambda path: cv2.imwrite(str(path), SCENE[..., ::-1].astype(np.uint16) * 257), SCENE),
    "one pixel": (lambda path: Image.fromarray(SCENE[:1, :1]).save(path), SCENE[:1, :1]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_kind_become_rgb(kind: str, tmp_path: Path) -> None:
    write, expected = KINDS[kind]
    write(tmp_path / "a.png")
    (frame,) = open_source(str(tmp_path / "a.png"))
    assert frame.name == "a"
    assert frame.image.dtype == np.uint8
    assert np.array_equal(frame.image, expected)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    photograph = np.zeros((16, 32, 3), np.uint8)
    photograph[:, 16:] = 250
    Image.fromarray(photograph).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = open_source(str(tmp_path / "a.jpg"))
    assert frame.image.shape == (32, 16, 3)
    assert np.abs(frame.image.astype(int) - np.rot90(photograph, -1)).max() < 10


def test_folder_is_read_in_order_and_damaged_files_are_skipped(tmp_path: Path) -> None:
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


def test_equal_names_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(SCENE).save(tmp_path / name)
    with pytest.raises(UserError, match=r"a.jpg and .*a.png differ only in their suffix"):
        open_source(str(tmp_path))


@pytest.fixture
def video_and_images(tmp_path: Path) -> tuple[Path, list[Array]]:
    """Return a video of 20 frames in which an edge moves, and its images."""
    images = []
    for i in range(20):
        image = np.full((64, 96, 3), (200, 30, 60), np.uint8)
        image[:, 4 * i :] = (20, 200, 90)
        images.append(image)
    with write_video(tmp_path / "a.mp4", 10) as write:
        for image in images:
            write("", image)
    return tmp_path / "a.mp4", images


def test_video_gives_the_images_it_was_made_of(video_and_images: tuple[Path, list[Array]]) -> None:
    path, images = video_and_images
    frames = open_source(str(path))
    assert isinstance(frames, Video)
    assert (frames.length, frames.rate) == (20, 10)
    decoded: list[Frame] = [*frames]
    assert [frame.name for frame in decoded] == [f"{i:06d}" for i in range(20)]
    for frame, image in zip(decoded, images, strict=True):
        assert frame.image.shape == image.shape
        assert np.abs(frame.image.astype(int) - image).mean() < 4
    assert np.abs(decoded[0].image.astype(int) - images[-1]).mean() > 40
    assert frames.skipped == []


def test_undecodable_frame_is_skipped_and_named(video_and_images: tuple[Path, list[Array]]) -> None:
    path, _ = video_and_images
    with require_av().open(str(path)) as container:
        tenth = [packet for packet in container.demux(video=0) if packet.size][10]
        position, size, time = tenth.pos, tenth.size, float(tenth.pts * tenth.time_base)
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    frames = open_source(str(path))
    assert len([*frames]) == 19
    assert frames.skipped == [f"{path} at {time:.2f} s"]


def test_rotation_of_a_video_is_applied(video_and_images: tuple[Path, list[Array]]) -> None:
    path, images = video_and_images
    content = path.read_bytes()
    one, none, last = (number.to_bytes(4, "big") for number in (0x10000, 0, 0x40000000))
    level = one + none * 3 + one + none * 3 + last
    clockwise = none + one + none + (-0x10000).to_bytes(4, "big", signed=True) + none * 4 + last
    track = content.index(level, content.index(b"tkhd"))
    path.write_bytes(content[:track] + clockwise + content[track + len(clockwise) :])
    first = next(iter(open_source(str(path)))).image
    assert first.shape == (96, 64, 3)
    fifth = [*open_source(str(path))][5].image
    assert np.abs(fifth.astype(int) - np.rot90(images[5], -1)).mean() < 4


class FakeCapture:
    """A camera with five frames; if `interrupted`, Ctrl-C arrives during the third."""

    interrupted = False

    def __init__(self, number: int) -> None:
        self.number, self.count = number, 0

    def isOpened(self) -> bool:
        return self.number == 2

    def get(self, _: int) -> float:
        return 25.0

    def read(self) -> tuple[bool, Array | None]:
        self.count += 1
        if self.interrupted and self.count == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return (True, SCENE[..., ::-1]) if self.count <= 5 else (False, None)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(("interrupted", "expected"), [(False, 5), (True, 2)])
def test_camera_ends_with_its_frames_or_an_interrupt(
    interrupted: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "interrupted", interrupted)
    camera = open_source("camera:2")
    assert isinstance(camera, Camera)
    assert (camera.length, camera.rate) == (None, 25)
    former = signal.getsignal(signal.SIGINT)
    with camera.handle_interrupt():
        frames = [*camera]
    assert signal.getsignal(signal.SIGINT) is former
    assert len(frames) == expected
    assert np.array_equal(frames[0].image, SCENE)


def test_missing_camera_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with pytest.raises(UserError, match="camera 0 does not answer"):
        open_source("camera")


def test_text_file_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("FFmpeg draws the letters of a text file.\n" * 50)
    with require_av().open(str(tmp_path / "notes.txt")) as container:
        assert container.streams.video
    with pytest.raises(UserError, match=r"notes.txt is neither an image \(.*\) nor a video"):
        open_source(str(tmp_path / "notes.txt"))
