"""The samples of PBM, PGM and PPM files as they are stored: OpenCV scales those of text files."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.data.image_io import MAX_PIXELS

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([1-6])" + (_GAP + rb"(\d{1,7})") * 2)
_MAXIMUM = re.compile(_GAP + rb"(\d{1,5})")
_COMMENT = re.compile(rb"#[^\r\n]*")


class Netpbm(NamedTuple):
    """A decoded file."""

    samples: npt.NDArray[Any]
    """H W, or H W 3; 8 bits, or 16 if the maximum needs them."""
    maximum: int


def is_netpbm(content: bytes) -> bool:
    """Return whether the bytes begin like a PBM, PGM or PPM file."""
    return content[:1] == b"P" and content[1:2] in b"123456" and content[2:3].isspace() and len(content) > 2


def decode_netpbm(content: bytes) -> Netpbm:
    """Decode a file; of a PBM, black is 0 and white 1, as image libraries write and read it, although its bits are the other way.

    Raises:
        ValueError: It is incomplete, or holds a value above its maximum.
    """
    header = _HEADER.match(content)
    if header is None:
        raise ValueError("no header")
    kind, width, height = (int(header[i]) for i in (1, 2, 3))
    channels, is_bitmap, end = 3 if kind in (3, 6) else 1, kind in (1, 4), header.end()
    maximum = 1
    if not is_bitmap:
        given = _MAXIMUM.match(content, end)
        if given is None:
            raise ValueError("no maximum")
        maximum, end = int(given[1]), given.end()
    if not 0 < maximum < 1 << 16 or not 0 < width * height <= MAX_PIXELS:
        raise ValueError("impossible header")
    shape = (height, width, 3) if channels == 3 else (height, width)
    dtype = np.dtype(np.uint8 if maximum < 256 else np.uint16)
    if kind == 4:
        rows = np.frombuffer(content, np.uint8, height * ((width + 7) // 8), end + 1).reshape(height, -1)
        samples = np.unpackbits(rows, 1)[:, :width]
    elif kind > 4:
        samples = np.frombuffer(content, dtype.newbyteorder(">"), height * width * channels, end + 1).astype(dtype)
    else:
        text = _COMMENT.sub(b"", content[end:])
        words = re.findall(rb"[01]", text) if is_bitmap else text.split()
        values = np.array(words[: height * width * channels], np.int64)
        if values.size and (values.min() < 0 or values.max() > maximum):
            raise ValueError("a value above the maximum")
        samples = values.astype(dtype)
    samples = samples.reshape(shape)
    if samples.max() > maximum:
        raise ValueError("a value above the maximum")
    return Netpbm(1 - samples if is_bitmap else samples, maximum)
