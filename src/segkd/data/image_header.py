"""What the headers of image files say that decoders do not pass on: EXIF orientation, checksums, bit depth, claimed size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

PNG_GRAY, PNG_RGB, PNG_PALETTE, PNG_GRAY_ALPHA = 0, 2, 3, 4
"""Color types of PNG."""

_ORIENTATION_TAG, _SUBFILE_TAG = 274, 254
_REDUCED, _MASK = 1, 4  # bits of the type of a subfile
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""Type of an EXIF entry → its format."""
_JPEG_APP1, _JPEG_SCAN = 0xE1, 0xDA
_PILLOW_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
}


class PngChunk(NamedTuple):
    """A chunk of a PNG file."""

    name: bytes
    data: memoryview
    checksum: int


class PngHeader(NamedTuple):
    """Part of the first chunk of a PNG file."""

    bit_depth: int
    """Bits per sample: 1, 2, 4, 8 or 16."""
    color_type: int


def read_png_header(content: bytes) -> PngHeader | None:
    """Return bit depth and color type of a PNG, and None for other content."""
    return PngHeader(*content[24:26]) if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 25 else None


def iterate_png_chunks(content: bytes) -> Iterator[PngChunk]:
    """Yield the complete chunks of a PNG, the last one included."""
    view, start, name = memoryview(content), 8, b""
    while start + 12 <= len(content) and name != b"IEND":
        end = start + 8 + int.from_bytes(view[start : start + 4])
        if end + 4 > len(content):
            return
        name = bytes(view[start + 4 : start + 8])
        yield PngChunk(name, view[start + 8 : end], int.from_bytes(view[end : end + 4]))
        start = end + 4


def is_png_intact(content: bytes, check_pixels: bool) -> bool:
    """Return whether a PNG ends properly and its checksums are right.

    Args:
        content: The file.
        check_pixels: Look at the checksums of the pixels too, which OpenCV does and Pillow does not.
    """
    name = b""
    for name, data, checksum in iterate_png_chunks(content):
        if (check_pixels or name != b"IDAT") and zlib.crc32(data, zlib.crc32(name)) != checksum:
            return False
    return name == b"IEND"


def is_tiff(content: bytes) -> bool:
    """Return whether the bytes are a TIFF, which all decoders turn by its orientation."""
    return content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_jpeg_ended(content: bytes) -> bool:
    """Return whether a JPEG has an end after its pixels; one in its header is that of a thumbnail."""
    ends = [end for _, _, end in _iterate_jpeg_segments(content)]
    return bool(ends) and content.find(b"\xff\xd9", ends[-1]) >= 0


def read_exif_orientation(content: bytes) -> int:
    """Return the EXIF orientation of a JPEG, PNG, WebP or TIFF, 1 to 8; 1 means upright, and so does an invalid value."""
    block = (_find_exif(content) or b"").removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}4xI", block)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for position in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", block, position)
            if tag == _ORIENTATION_TAG and kind in _INTEGERS and length == 1:
                (value,) = struct.unpack_from(order + _INTEGERS[kind], block, position + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # the end is missing
        pass
    return 1


def _find_exif(content: bytes) -> bytes | None:
    if content[:2] == b"\xff\xd8":
        return _find_exif_in_jpeg(content)
    if content[:4] == b"\x89PNG":
        return next((bytes(chunk.data) for chunk in iterate_png_chunks(content) if chunk.name == b"eXIf"), None)
    if content[:4] == b"RIFF":
        return _find_exif_in_webp(content)
    return content if is_tiff(content) else None


def _find_exif_in_jpeg(content: bytes) -> bytes | None:
    segments = (content[start:end] for marker, start, end in _iterate_jpeg_segments(content) if marker == _JPEG_APP1)
    return next((segment for segment in segments if segment.startswith(b"Exif\0\0")), None)


def _iterate_jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the segments of a JPEG; the last one is the header of the first scan."""
    start, marker = 2, 0
    while marker != _JPEG_SCAN and start + 4 <= len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == 0xFF:
            start += 1
            continue
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
        yield marker, start + 4, end
        start = end


def _find_exif_in_webp(content: bytes) -> bytes | None:
    start = 12
    while start + 8 <= len(content):
        end = start + 8 + int.from_bytes(content[start + 4 : start + 8], "little")
        if content[start : start + 4] == b"EXIF":
            return content[start + 8 : end]
        start = end + end % 2
    return None


def turn_upright(image: npt.NDArray[np.generic], orientation: int) -> npt.NDArray[np.generic]:
    """Turn and mirror an image H W … as its EXIF orientation, 1 to 8, asks."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def open_with_pillow(content: bytes) -> ImageFile.ImageFile | None:
    """Open a PNG, TIFF, BMP, JPEG or WebP without decoding it, and return None for other content.

    Unlike `PIL.Image.open`, it sets no limit on the number of pixels. Damaged bytes raise exceptions of many kinds.
    """
    readers = (reader for signature, reader in _PILLOW_READERS.items() if content.startswith(signature))
    reader = next(readers, None)
    return None if reader is None else reader(BytesIO(content))


def count_full_pages(image: ImageFile.ImageFile) -> int:
    """Return the number of pages or frames of an opened image; of a TIFF without its smaller copies and its masks.

    The first page is the current one afterwards.
    """
    pages: int = getattr(image, "n_frames", 1)
    if pages < 2 or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return pages
    full = 0
    for page in range(pages):
        image.seek(page)
        full += not image.tag_v2.get(_SUBFILE_TAG, 0) & (_REDUCED | _MASK)
    image.seek(0)
    return max(full, 1)
