"""Writers of images: a folder, one file, a video or a GIF. Each is a context that gives a function `write(name, image)`.

A video and a GIF also take the time of an image, `write(name, image, time)`, and are of constant rate without.

Files are renamed to their name when they are complete, so there is no partial file. If a file cannot be written, a
UserError says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.predict.frame_times import FrameTime
from segkd.predict.sources import require_av
from segkd.utils.files import atomic_write, make_dir


class Write(Protocol):
    """A function that writes images; folders and files have no use for their time."""

    def __call__(self, name: str, image: Array, time: FrameTime | None = None, /) -> None:
        """Write an image."""


_X264_OPTIONS = {"crf": "20"}  # from 0, lossless, to 51; the default 23 blurs the edges of classes
_BT709, _LIMITED_RANGE = 1, 1  # H.264's numbers of color space and range; without them, players guess
_TIME_UNIT = Fraction(1, 90_000)  # seconds; MPEG's unit
_GIF_COLORS = 64  # per frame; half as many save a quarter of the file and flatten the photograph


@contextmanager
def write_folder(path: Path) -> Iterator[Write]:
    """Write PNG files, NAME.png, into a folder."""
    make_dir(path, "output")

    def write(name: str, image: Array, _: FrameTime | None = None) -> None:
        file_path = path / f"{name}.png"
        make_dir(file_path.parent, "output")
        with atomic_write(file_path, "output") as part:
            Image.fromarray(image).save(part, "PNG")

    try:
        yield write
    finally:
        with suppress(OSError):  # the folder is not empty
            path.rmdir()


@contextmanager
def write_file(path: Path) -> Iterator[Write]:
    """Write one image, PNG or JPEG by its suffix."""
    make_dir(path.parent, "output")

    def write(_name: str, image: Array, _: FrameTime | None = None) -> None:
        with atomic_write(path, "output") as part:
            Image.fromarray(image).save(part, "PNG" if path.suffix.lower() == ".png" else "JPEG")

    yield write


@contextmanager
def write_video(path: Path, fps: float, width: int | None = None) -> Iterator[Write]:
    """Write an MP4 (H.264, yuv420p) that plays while it is downloaded. Odd sides are padded by repeating the last row or column.

    Args:
        path: the file.
        fps: frames per second.
        width: width in pixels to which images are resized; by default their own.

    Raises:
        UserError: PyAV is missing, or an image differs in size from the first.
    """
    av = require_av()
    make_dir(path.parent, "output")
    with atomic_write(path, "output") as part:
        container = av.open(str(part), "w", format="mp4", options={"movflags": "faststart"})
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_X264_OPTIONS)
        stream.pix_fmt = "yuv420p"
        codec, fit = stream.codec_context, _make_fit(path, width)
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED_RANGE
        durations: dict[int, int] = {}

        def mux(packets: list[Any]) -> None:
            for packet in packets:
                packet.duration = durations.pop(packet.pts, packet.duration)  # the encoder knows the rate alone
            container.mux(packets)

        def write(name: str, image: Array, time: FrameTime | None = None) -> None:
            image = fit(name, image)
            image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
            if not codec.is_open:
                codec.height, codec.width = image.shape[:2]
                if time is not None:
                    # Frames that are stored out of order would make the file's duration wrong.
                    codec.time_base, codec.max_b_frames = _TIME_UNIT, 0
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            if time is not None:
                frame.time_base, frame.pts = _TIME_UNIT, round(time.start / _TIME_UNIT)
                durations[frame.pts] = round(time.duration / _TIME_UNIT)
            mux(stream.encode(frame))

        try:
            yield write
            mux(stream.encode())
            container.close()
        finally:
            with suppress(OSError):  # the cause is already raised
                container.close()


@contextmanager
def write_gif(path: Path, fps: float, width: int | None = None) -> Iterator[Write]:
    """Write a looping GIF with 64 colors per frame. Pillow keeps it in memory until the end, one byte per pixel.

    Args:
        path: the file.
        fps: frames per second; GIF stores hundredths of a second per frame.
        width: width in pixels to which images are resized; by default their own.

    Raises:
        UserError: an image differs in size from the first.
    """
    frames: list[Image.Image] = []
    fit = _make_fit(path, width)

    durations: list[int] = []

    def write(name: str, image: Array, time: FrameTime | None = None) -> None:
        # Browsers play shorter frames at a tenth of a second.
        durations.append(max(20, 10 * round(100 / fps if time is None else 100 * time.duration)))
        # Dithering would take most of the file.
        frames.append(Image.fromarray(fit(name, image)).quantize(_GIF_COLORS, dither=Image.Dither.NONE))

    make_dir(path.parent, "output")
    yield write
    with atomic_write(path, "output") as part:
        first, *others = frames
        first.save(part, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _make_fit(path: Path, width: int | None) -> Callable[[str, Array], Array]:
    """Return a function that resizes images to a width, and checks that all have the size of the first."""
    shapes: list[tuple[int, ...]] = []

    def fit(name: str, image: Array) -> Array:
        if not shapes:
            shapes.append(image.shape)
        if image.shape != shapes[0]:
            first, other = (f"{shape[0]}×{shape[1]}" for shape in (shapes[0], image.shape))
            raise UserError(f"{path} began with {first} pixels, and {name} has {other}; give a folder as output")
        if width is None or width == image.shape[1]:
            return image
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))

    return fit
