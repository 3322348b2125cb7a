"""Pixels of image files, and codes of label files."""

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
"""H W, one number a pixel: an id, a place in the file's palette, or a colour as red · 2¹⁶ + green · 2⁸ + blue."""
LabelEncoding = Literal["ids", "palette", "colors"]

LABEL_ENCODINGS = {"ids": 1 << 8, "palette": 1 << 8, "colors": 1 << 24}
"""How many codes there can be."""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); restore the file") from None


def decode_image(path: Path, flags: int) -> Array:
    """The pixels of an image file, as OpenCV orders them.

    Raises:
        UserError: it cannot be read, or is no whole image.
    """
    return read_image(read_bytes(path), path, flags)


def read_image(content: bytes, path: Path, flags: int) -> Array:
    """The same of a file's bytes."""
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if decoded is None:
        raise _damaged(content, path)
    return cast("Array", decoded)  # whoever reads a label refuses another depth


def decode_label(content: bytes, path: Path, coding: LabelEncoding) -> LabelArray:
    """The codes of a label file.

    Raises:
        UserError: it is no whole image, or coded in another way.
    """
    label = palette_indices(content, path) if coding == "palette" else None
    if label is None:
        label = read_image(content, path, cv2.IMREAD_UNCHANGED)
    if coding == "colors" and label.ndim == 3 and label.shape[2] == 3 and label.dtype == np.uint8:
        blue, green, red = (label[..., channel].astype(np.int32) for channel in range(3))
        return red << 16 | green << 8 | blue
    if coding == "colors" or label.ndim != 2 or label.dtype != np.uint8:
        wanted = "three 8-bit channels of colours" if coding == "colors" else "one 8-bit channel of ids"
        raise UserError(
            f"label {path} is not {wanted} but {label.shape} {label.dtype}{_palette_note(content)}; convert it, or say how "
            "labels are coded (`python -m segkd.check` proposes a table)"
        )
    return label


def palette_indices(content: bytes, path: Path) -> Array | None:
    """The places in the palette of a PNG that has one; OpenCV would give the colours."""
    if not has_palette(content):
        return None
    try:
        return np.array(Image.open(BytesIO(content)))
    except (OSError, SyntaxError, ValueError):
        raise _damaged(content, path) from None


def read_palette(content: bytes) -> list[tuple[int, int, int]]:
    """The RGB colours of a PNG's palette."""
    flat = Image.open(BytesIO(content)).getpalette() or []
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]


def has_palette(content: bytes) -> bool:
    """Whether it is a PNG whose pixels are places in a palette."""
    return content[:8] == b"\x89PNG\r\n\x1a\n" and content[25:26] == b"\x03"  # colour type, in the header


def exif_orientation(content: bytes) -> int:
    """How a JPEG says that it is to be turned: 1 for not at all, up to 8 (EXIF tag 274)."""
    return int(Image.open(BytesIO(content)).getexif().get(274, 1)) if content[:2] == b"\xff\xd8" else 1


def voc_color(i: int) -> tuple[int, int, int]:
    """A colour for each i below 256, RGB, as PASCAL VOC has them: the bits of i in turn, from the highest down."""
    red, green, blue = (sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
    return red, green, blue


def _palette_note(content: bytes) -> str:
    return " with a palette" if has_palette(content) else ""


def _damaged(content: bytes, path: Path) -> UserError:
    return UserError(f"{path} is no whole image ({len(content)} bytes); fetch or copy it again")
