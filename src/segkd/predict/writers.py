"""Writers of images: a folder, one file, a video or a GIF. Each is a context that gives a function `write(name, image)`.

Files are renamed to their name when they are complete, so there is no partial file. If a file cannot be written, a
UserError says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.predict.sources import require_av
from segkd.utils.files import atomic_write, make_dir

Write = Callable[[str, Array], None]

_X264_OPTIONS = {"crf": "20"}  # from 0, lossless, to 51; the default 23 blurs the edges of classes
_BT709, _LIMITED_RANGE = 1, 1  # H.264's numbers of color space and range; without them, players guess
_GIF_COLORS = 64  # per frame; half as many save a quarter of the file and flatten the photograph


@contextmanager
def write_folder(path: Path) -> Iterator[Write]:
    """Write PNG files, NAME.png, into a folder."""
    make_dir(path, "output")

    def write(name: str, image: Array) -> None:
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

    def write(_: str, image: Array) -> None:
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

        def write(name: str, image: Array) -> None:
            image = fit(name, image)
            image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
            if not codec.is_open:
                codec.height, codec.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))

        try:
            yield write
            container.mux(stream.encode())
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

    def write(name: str, image: Array) -> None:
        # Dithering would take most of the file.
        frames.append(Image.fromarray(fit(name, image)).quantize(_GIF_COLORS, dither=Image.Dither.NONE))

    make_dir(path.parent, "output")
    yield write
    with atomic_write(path, "output") as part:
        first, *others = frames
        duration = max(20, 10 * round(100 / fps))  # browsers play shorter ones at a tenth of a second
        first.save(part, "GIF", save_all=True, append_images=others, duration=duration, loop=0)


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
