"""Where pictures go: a folder, one file, a film, a GIF. Each is entered and gives a function `write(name, picture)`.

A file stands whole under its name or not at all: it is written under another and renamed at its end. What cannot be written is a
UserError that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segkd.errors import UserError
from segkd.predict.sources import require_av
from segkd.utils.files import atomic_write, make_dir

Array = npt.NDArray[np.uint8]
Write = Callable[[str, Array], None]

_QUALITY = {"crf": "20"}  # x264's scale from 0, lossless, to 51; 23 is its default and blurs the edges of classes
_BT709, _LIMITED = 1, 1  # H.264's numbers of colour space and range; where a file has none, players guess
_GIF_COLORS = 64  # of each frame; half as many save a quarter of the file and flatten the photograph


@contextmanager
def write_folder(path: Path) -> Iterator[Write]:
    """PNG files, NAME.png, in a folder."""
    make_dir(path, "output")

    def write(name: str, picture: Array) -> None:
        file_path = path / f"{name}.png"
        make_dir(file_path.parent, "output")
        with atomic_write(file_path, "output") as part:
            Image.fromarray(picture).save(part, "PNG")

    try:
        yield write
    finally:
        with suppress(OSError):  # there is something in it
            path.rmdir()


@contextmanager
def write_file(path: Path) -> Iterator[Write]:
    """One picture, PNG or JPEG by its suffix."""
    make_dir(path.parent, "output")

    def write(_: str, picture: Array) -> None:
        with atomic_write(path, "output") as part:
            Image.fromarray(picture).save(part, "PNG" if path.suffix.lower() == ".png" else "JPEG")

    yield write


@contextmanager
def write_video(path: Path, rate: float, width: int | None = None) -> Iterator[Write]:
    """An MP4 of H.264 in yuv420p that plays before all of it is fetched. Where a side is odd, its last row or column is doubled.

    Args:
        rate: frames a second.
        width: pixels to bring pictures to; their own if not given.

    Raises:
        UserError: PyAV is missing, or a picture has another size than the first.
    """
    av = require_av()
    make_dir(path.parent, "output")
    with atomic_write(path, "output") as part:
        container = av.open(str(part), "w", format="mp4", options={"movflags": "faststart"})
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=_QUALITY)
        stream.pix_fmt = "yuv420p"
        coder, fit = stream.codec_context, _fitting(path, width)
        coder.colorspace = coder.color_primaries = coder.color_trc = _BT709
        coder.color_range = _LIMITED

        def write(name: str, picture: Array) -> None:
            picture = fit(name, picture)
            height, across = picture.shape[:2]
            picture = np.pad(picture, ((0, height % 2), (0, across % 2), (0, 0)), mode="edge")
            if not coder.is_open:
                coder.height, coder.width = picture.shape[:2]
            shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(shown.reformat(format="yuv420p", dst_colorspace="ITU709")))

        try:
            yield write
            container.mux(stream.encode())
            container.close()
        finally:
            with suppress(OSError):  # what was wrong is raised already
                container.close()


@contextmanager
def write_gif(path: Path, rate: float, width: int | None = None) -> Iterator[Write]:
    """A GIF that repeats, of 64 colours a frame. It is held in memory to its end, a byte a pixel, as Pillow writes it.

    Args:
        rate: frames a second; what GIF can say is hundredths of a second a frame.
        width: pixels to bring pictures to; their own if not given.

    Raises:
        UserError: a picture has another size than the first.
    """
    shown: list[Image.Image] = []
    fit = _fitting(path, width)

    def write(name: str, picture: Array) -> None:
        # Dithering would be most of the file.
        shown.append(Image.fromarray(fit(name, picture)).quantize(_GIF_COLORS, dither=Image.Dither.NONE))

    make_dir(path.parent, "output")
    yield write
    with atomic_write(path, "output") as part:
        first, *others = shown
        duration = max(20, 10 * round(100 / rate))  # what is quicker, browsers show at a tenth of a second
        first.save(part, "GIF", save_all=True, append_images=others, duration=duration, loop=0)


def _fitting(path: Path, width: int | None) -> Callable[[str, Array], Array]:
    """Brings pictures to a width, and holds them to the size of the first."""
    size: list[tuple[int, ...]] = []

    def fit(name: str, picture: Array) -> Array:
        size.append(picture.shape) if not size else None
        if picture.shape != size[0]:
            first, other = (f"{shape[0]}×{shape[1]}" for shape in (size[0], picture.shape))
            raise UserError(f"{path} began with {first} pixels, and {name} has {other}; give a folder as output")
        if width is None or width == picture.shape[1]:
            return picture
        height = max(1, round(picture.shape[0] * width / picture.shape[1]))
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))

    return fit
