"""Image files of forms that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Color types of PNG."""


def make_chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_png(
    samples: np.ndarray, bit_depth: int = 8, color_type: int = GRAY, chunks: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return a PNG.

    Args:
        samples: H W, or H W C, as they are to be stored.
        bit_depth: Bits per sample.
        color_type: How the samples are meant.
        chunks: Chunks between the header and the pixels.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    rows = samples.reshape(height, -1)
    bits = (rows[..., None].astype(np.int64) >> np.arange(bit_depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(make_chunk(*part) for part in parts)


def make_exif(value: int | bytes, kind: int = 3, count: int = 1) -> bytes:
    """Return EXIF data with an orientation, which may be nonsense.

    Args:
        value: The number, or four bytes.
        kind: Type of the entry: 2 is text, 3 a number of 16 bits, 4 one of 32, 5 a fraction.
        count: Number of values.
    """
    field = value if isinstance(value, bytes) else struct.pack("<H2x" if kind == 3 else "<I", value)
    return b"Exif\0\0II*\0" + struct.pack("<IHHHI", 8, 1, 274, kind, count) + field + bytes(4)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image file of one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
