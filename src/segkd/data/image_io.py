"""Decoding of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from segkd.data.image_header import (
    is_jpeg_ended,
    is_png_intact,
    is_tiff,
    open_with_pillow,
    read_exif_orientation,
    read_png_header,
    turn_upright,
)
from segkd.errors import UserError

Array = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.uint8] | npt.NDArray[np.int32]
"""H W, one value per pixel: an id, a palette index, or a color as red · 2¹⁶ + green · 2⁸ + blue."""
LabelEncoding = Literal["ids", "palette", "colors"]
Color = tuple[int, int, int]
"""RGB, 0..255."""

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".webp", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm"),
)
"""Suffixes of the image files that every OpenCV reads, in lower case."""

LABEL_ENCODINGS = {"ids": 1 << 8, "palette": 1 << 8, "colors": 1 << 24}
"""Number of possible values of each encoding."""

MAX_PIXELS = 1 << 30  # of OpenCV, unless its environment variables say otherwise
_MAX_SIDE = 1 << 20


class DamagedFileError(UserError):
    """A file that cannot be decoded."""


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        DamagedFileError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"cannot read {path} ({error.strerror}); restore the file") from None


def read_image(path: Path, flags: int) -> Array:
    """Read an image file.

    Args:
        path: The file.
        flags: OpenCV's `IMREAD_*`; channels are in OpenCV's order.

    Raises:
        DamagedFileError: The file cannot be read, or is not a complete image.
    """
    return decode_image(read_bytes(path), path, flags)


def decode_image(content: bytes, path: Path, flags: int) -> Array:
    """Decode the bytes of an image file and turn the image upright; see `read_image`.

    Raises:
        DamagedFileError: The bytes are not a complete image, or claim to be too large a one.
    """
    if not _is_complete(content):
        raise make_damage_error(content, path)
    try:
        # Which formats OpenCV turns by itself depends on its version and the flags; it always turns a TIFF.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        raise make_damage_error(content, path)
    orientation = 1 if is_tiff(content) else read_exif_orientation(content)
    upright = image if orientation == 1 else turn_upright(image, orientation)
    return cast("Array", upright)  # 16-bit images pass through


def _is_complete(content: bytes) -> bool:
    """Return whether an end that OpenCV may not miss is there."""
    if content[:2] == b"\xff\xd8":
        return is_jpeg_ended(content)  # OpenCV 4.10 fills the missing part with gray
    return bool(content) and (read_png_header(content) is None or is_png_intact(content, check_pixels=False))


def make_damage_error(content: bytes, path: Path) -> DamagedFileError:
    """Return the error that a file cannot be decoded."""
    width, height = _read_claimed_size(content)
    if width * height > MAX_PIXELS or max(width, height) > _MAX_SIDE:
        return DamagedFileError(
            f"{path} says in its header that it is {height}×{width}, more than the {MAX_PIXELS} pixels that are read; "
            "cut it into tiles, or copy it again if it is damaged"
        )
    return DamagedFileError(f"{path} is not a complete image ({len(content)} bytes); download or copy it again")


def _read_claimed_size(content: bytes) -> tuple[int, int]:
    """Return the width and height in the header; 0 if there are none."""
    try:
        image = open_with_pillow(content)
    except Exception:  # Pillow fails in many ways on damaged bytes
        return 0, 0
    return (0, 0) if image is None else image.size


def make_voc_color(index: int) -> Color:
    """Return the color of PASCAL VOC's color map for an index below 256.

    The bits of the index go to red, green and blue in turn, the lowest bits to the highest bits of the channels.
    """
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
