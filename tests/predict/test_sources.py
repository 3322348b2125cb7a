"""Frames of image files, videos and cameras, intact and damaged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.predict.frame_times import FrameTime
from segkd.predict.sources import Camera, Frame, Video, open_source, require_av
from segkd.predict.writers import write_gif, write_video

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


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".webp", ".bmp", ".jfif", ".PNG", ".photo"])
def test_single_image_keeps_its_name_whatever_its_suffix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.b{suffix}"
    kind = {".jfif": "JPEG", ".photo": "PNG"}.get(suffix) or Image.registered_extensions()[suffix.lower()]
    Image.fromarray(SCENE).save(path, kind)
    frames = open_source(str(path))
    (frame,) = frames
    assert (frame.name, frame.image.shape, frames.rate) == ("a.b", SCENE.shape, None)


def test_folder_with_all_kinds_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is read is found through links and in any case; what looks like an image and is not read is in `skipped`."""
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("in/a.TIF", "in/b.webp", "in/c.JPEG", "elsewhere/d.bmp", "in/._a.png"):
        Image.fromarray(SCENE).save(tmp_path / name)
    (folder / "e.heic").write_bytes(b"\0" * 40)
    Image.fromarray(SCENE).save(folder / "large.png")
    content = bytearray((folder / "large.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "large.png").write_bytes(content)
    frames = open_source(str(folder))
    assert [frame.name for frame in frames] == ["a", "b", "c", "link/d"]
    assert sorted(frames.skipped) == [str(folder / "e.heic"), str(folder / "large.png")]
    assert caplog.messages == [f"{folder / '._a.png'} is left out as hidden"]


def test_folder_with_nothing_but_images_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"no image that is read \(.*a.heic is of another kind\); give a folder"):
        open_source(str(tmp_path))


def test_first_of_several_pages_is_taken_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "b.tif")
    frames = [*open_source(str(tmp_path))]
    assert [int(frame.image.max()) for frame in frames] == [10, 20]
    assert caplog.messages == [f"{tmp_path / 'a.tif'} is predicted on page 1 of 3 alone; save each page as a file"]


TIMES = (0.0, 0.03, 0.06, 0.5, 1.3, 1.35, 3.2, 3.25, 4.4)
"""Seconds at which frames are shown, whose average rate is 2."""


def write_timed_video(path: Path, times: Sequence[float], last: float = 0.3) -> None:
    with write_video(path, 30) as write:
        for i, (start, end) in enumerate(pairwise((*times, times[-1] + last))):
            image = np.full((64, 96, 3), (200, 30, 60), np.uint8)
            image[:, 8 * i :] = (20, 200, 90)
            write("", image, FrameTime(start, end - start))


def read_times(path: Path) -> tuple[list[float], float]:
    """Return the seconds at which frames are shown, and the duration."""
    with require_av().open(str(path)) as container:
        stream = container.streams.video[0]
        return [float(frame.pts * frame.time_base) for frame in container.decode(stream)], float(
            stream.duration * stream.time_base
        )


@pytest.mark.parametrize("is_copied", [False, True])
def test_video_of_variable_rate_keeps_its_times(is_copied: bool, tmp_path: Path) -> None:
    """As written by segkd, and as read and written again."""
    path = tmp_path / "a.mp4"
    write_timed_video(path, TIMES)
    if is_copied:
        frames = open_source(str(path))
        with write_video(tmp_path / "copy.mp4", frames.rate or 0) as write:
            for frame in frames:
                write(frame.name, frame.image, frame.time)
        path = tmp_path / "copy.mp4"
    times, duration = read_times(path)
    assert times == pytest.approx(TIMES, abs=1e-4)
    assert duration == pytest.approx(4.7, abs=1e-3)


def test_gif_of_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    write_timed_video(tmp_path / "a.mp4", TIMES)
    frames = open_source(str(tmp_path / "a.mp4"))
    with write_gif(tmp_path / "a.gif", frames.rate or 0) as write:
        for frame in frames:
            write(frame.name, frame.image, frame.time)
    with Image.open(tmp_path / "a.gif") as gif:
        durations = [gif.seek(i) or gif.info["duration"] for i in range(gif.n_frames)]
    assert durations == [30, 30, 440, 800, 50, 1850, 50, 1150, 300]


def test_rounded_times_of_a_constant_rate_are_not_variable(tmp_path: Path) -> None:
    """A container that counts milliseconds; with one frame left out it is variable."""
    thirds = [round(i / 30, 3) for i in range(12)]
    write_timed_video(tmp_path / "a.mp4", thirds, 1 / 30)
    assert all(frame.time is None for frame in open_source(str(tmp_path / "a.mp4")))
    write_timed_video(tmp_path / "b.mp4", [*thirds[:5], *thirds[8:]], 1 / 30)
    assert all(frame.time is not None for frame in open_source(str(tmp_path / "b.mp4")))


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
    with pytest.raises(UserError, match=r"notes.txt is neither an image nor a video"):
        open_source(str(tmp_path / "notes.txt"))
