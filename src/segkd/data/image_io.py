"""Decoding of image and label files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segkd.errors import UserError

Array = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.uint8] | npt.NDArray[np.int32]
"""H W, one value per pixel: an id, a palette index, or a color as red · 2¹⁶ + green · 2⁸ + blue."""
LabelEncoding = Literal["ids", "palette", "colors"]
Color = tuple[int, int, int]
"""RGB, 0..255."""

IMAGE_SUFFIXES = tuple(".png .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .webp .jp2 .pbm .pgm .ppm .pnm".split())
"""Suffixes of the image files that every OpenCV reads, in lower case."""

LABEL_ENCODINGS = {"ids": 1 << 8, "palette": 1 << 8, "colors": 1 << 24}
"""Number of possible values of each encoding."""


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); restore the file") from None


def read_image(path: Path, flags: int) -> Array:
    """Read an image file.

    Args:
        path: The file.
        flags: OpenCV's `IMREAD_*`; channels are in OpenCV's order.

    Raises:
        UserError: The file cannot be read, or is not a complete image.
    """
    return decode_image(read_bytes(path), path, flags)


def decode_image(content: bytes, path: Path, flags: int) -> Array:
    """Decode the bytes of an image file; see `read_image`.

    Raises:
        UserError: The bytes are not a complete image.
    """
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise _make_damage_error(content, path)
    return cast("Array", image)  # 16-bit images pass through; `decode_label` rejects them


def decode_label(content: bytes, path: Path, encoding: LabelEncoding) -> LabelArray:
    """Decode the bytes of a label file, H W.

    Raises:
        UserError: The bytes are not a complete image, or have another encoding.
    """
    label = decode_palette_indices(content, path) if encoding == "palette" else None
    if label is None:
        label = decode_image(content, path, cv2.IMREAD_UNCHANGED)
    if encoding == "colors" and label.ndim == 3 and label.shape[2] == 3 and label.dtype == np.uint8:
        blue, green, red = (label[..., channel].astype(np.int32) for channel in range(3))
        return red << 16 | green << 8 | blue
    if encoding == "colors" or label.ndim != 2 or label.dtype != np.uint8:
        expected = "three 8-bit channels of colors" if encoding == "colors" else "one 8-bit channel of ids"
        palette = " with a palette" if has_palette(content) else ""
        raise UserError(
            f"label {path} is not {expected} but {label.shape} {label.dtype}{palette}; convert it, or "
            "configure its encoding (`python -m segkd.check` proposes a table)"
        )
    return label


def decode_palette_indices(content: bytes, path: Path) -> Array | None:
    """Return the palette indices of a PNG, H W, or None if it has no palette; OpenCV would return colors.

    Raises:
        UserError: The bytes are not a complete image.
    """
    if not has_palette(content):
        return None
    try:
        return np.array(Image.open(BytesIO(content)))
    except (OSError, SyntaxError, ValueError):
        raise _make_damage_error(content, path) from None


def read_palette(content: bytes) -> list[Color]:
    """Return the colors of a PNG's palette."""
    flat = Image.open(BytesIO(content)).getpalette() or []
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]


def has_palette(content: bytes) -> bool:
    """Return whether the bytes are a PNG with a palette."""
    return content[:8] == b"\x89PNG\r\n\x1a\n" and content[25:26] == b"\x03"  # color type, in the header


def read_exif_orientation(content: bytes) -> int:
    """Return the EXIF orientation of a JPEG (tag 274), 1 to 8; 1 means upright."""
    return int(Image.open(BytesIO(content)).getexif().get(274, 1)) if content[:2] == b"\xff\xd8" else 1


def make_voc_color(index: int) -> Color:
    """Return the color of PASCAL VOC's color map for an index below 256.

    The bits of the index go to red, green and blue in turn, the lowest bits to the highest bits of the channels.
    """
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _make_damage_error(content: bytes, path: Path) -> UserError:
    return UserError(f"{path} is not a complete image ({len(content)} bytes); download or copy it again")
