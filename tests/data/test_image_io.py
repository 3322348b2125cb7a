"""Images are decoded as a plain reading with Pillow, or refused in one sentence."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from segkd.data.image_header import read_exif_orientation
from segkd.data.image_io import DamagedFileError, decode_image
from tests.helpers.image_files import GRAY, PALETTE, make_chunk, make_exif, make_png, save

FORMATS = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF, LZW": {"compression": "tiff_lzw"},
}
PICTURE = np.kron(np.arange(72, dtype=np.uint8).reshape(4, 6, 3) * 3, np.ones((8, 8, 1), np.uint8))
"""H W 3; no turn and no reflection leaves it as it is."""


def decode(content: bytes) -> np.ndarray:
    return decode_image(content, Path("image.png"), cv2.IMREAD_COLOR)[..., ::-1]


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two images differ by more than JPEG does."""
    return one.shape != other.shape or np.abs(one.astype(int) - other.astype(int)).max() > 8


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(name: str, orientation: int) -> None:
    content = save(Image.fromarray(PICTURE), name.partition(",")[0], exif=make_exif(orientation), **FORMATS[name])
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert not differ(decode(content), upright)
    assert read_exif_orientation(content) == orientation
    unchanged = decode_image(content, Path("image.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert not differ(unchanged, upright)
    assert differ(upright, PICTURE) == (orientation != 1)  # negative control: the stored pixels are others


INVALID_ORIENTATIONS = {
    "0": make_exif(0),
    "9": make_exif(9),
    "large": make_exif(1 << 20, kind=4),
    "text": make_exif(b"six\0", kind=2, count=4),
    "two numbers": make_exif(b"\6\0\3\0", count=2),
    "fraction beyond the end": make_exif(1 << 30, kind=5),
    "no EXIF": b"Exif\0\0what?",
    "directory beyond the end": make_exif(6)[:10] + b"\xff" * 4 + make_exif(6)[14:],
}


@pytest.mark.parametrize("orientation", INVALID_ORIENTATIONS)
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_invalid_orientations_leave_an_image_as_it_is(name: str, orientation: str) -> None:
    content = save(Image.fromarray(PICTURE), name, exif=INVALID_ORIENTATIONS[orientation], **FORMATS[name])
    assert not differ(decode(content), PICTURE)
    content = save(Image.fromarray(PICTURE), name, exif=make_exif(6, kind=4), **FORMATS[name])  # negative control
    assert differ(decode(content), PICTURE)


def test_truncated_exif_leaves_an_image_as_it_is() -> None:
    exif = make_exif(6)
    for length in range(len(exif) - 7):
        content = save(Image.fromarray(PICTURE), "JPEG", exif=exif[:length], **FORMATS["JPEG"])
        assert not differ(decode(content), PICTURE)


def make_huge_jpeg() -> bytes:
    content = bytearray(save(Image.new("RGB", (8, 8)), "JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", 65000, 65000)
    return bytes(content)


def make_huge_png(color_type: int) -> bytes:
    chunks = [(b"PLTE", bytes(6))] if color_type == PALETTE else []
    content = make_png(np.zeros((1, 8)), 8, color_type, chunks)
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 70000, 8, color_type, 0, 0, 0))
    return content[:8] + header + content[8 + len(header) :]


@pytest.mark.parametrize(
    ("content", "size"),
    [(make_huge_png(GRAY), "70000×60000"), (make_huge_png(PALETTE), "70000×60000"), (make_huge_jpeg(), "65000×65000")],
    ids=["PNG", "palette", "JPEG"],
)
def test_headers_of_huge_images_are_reported(content: bytes, size: str) -> None:
    with pytest.raises(DamagedFileError, match=rf"says in its header that it is {size}, more than the .*; cut it into"):
        decode(content)


@pytest.mark.parametrize("name", FORMATS)
@settings(derandomize=True, max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_images_are_reported(name: str, data: st.DataObject) -> None:
    """Truncated files are refused; a flipped bit is found where the format has checksums, and never ends in a traceback."""
    kind = name.partition(",")[0]
    content = save(Image.fromarray(PICTURE), kind, exif=make_exif(3), **FORMATS[name])
    expected = decode(content)
    length = data.draw(st.integers(0, len(content) - 1), label="length")
    with pytest.raises(DamagedFileError):
        decode(content[:length])
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, len(content) - 1), label="position")] ^= 1 << data.draw(
        st.integers(0, 7), label="bit"
    )
    try:
        image = decode(bytes(damaged))
    except DamagedFileError:
        return
    assert kind != "PNG" or not differ(image, expected)


def test_truncated_image_with_a_thumbnail_is_reported() -> None:
    """The end of the thumbnail is not the end of the image."""
    thumbnail = save(Image.new("RGB", (8, 8)), "JPEG")
    content = save(Image.fromarray(PICTURE), "JPEG", exif=b"Exif\0\0" + thumbnail)
    decode(content)
    assert b"\xff\xd9" in content[:-2]
    with pytest.raises(DamagedFileError):
        decode(content[:-2])
