"""Labels are read as they are stored, in every form that loses nothing, and refused in one sentence in all others."""

from __future__ import annotations

import io
import re
import shlex
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from segkd.data.image_io import DamagedFileError, LabelEncoding
from segkd.data.label_io import decode_label
from segkd.errors import UserError
from tests.helpers.image_files import GRAY, GRAY_ALPHA, PALETTE, RGB, RGBA, make_chunk, make_exif, make_png, save

PATH = Path("label.png")
COLORS = np.array([(index * 37 % 256, index * 91 % 256, 255 - index) for index in range(256)], np.uint8)
"""Palette of 256 colors."""


def read(content: bytes, encoding: LabelEncoding = "ids") -> np.ndarray:
    return decode_label(content, PATH, encoding).values


def pack(colors: np.ndarray) -> np.ndarray:
    red, green, blue = colors.astype(np.int32).transpose(2, 0, 1)
    return red << 16 | green << 8 | blue


def make_palette_png(ids: np.ndarray, bit_depth: int, exif: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    colors = COLORS[: 1 << bit_depth].tobytes()
    return make_png(ids, bit_depth, PALETTE, [(b"PLTE", colors), *chunks, (b"eXIf", exif[6:])])


def make_gray_png(ids: np.ndarray, bit_depth: int, exif: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    return make_png(ids, bit_depth, GRAY, [*chunks, (b"eXIf", exif[6:])])


def make_palette_image(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(COLORS.tobytes())
    return image


def make_opaque_png(ids: np.ndarray, bit_depth: int, exif: bytes) -> bytes:
    opaque = np.full_like(ids, 255)
    return make_png(np.stack([ids, opaque], -1), 8, GRAY_ALPHA, [(b"eXIf", exif[6:])])


WRITERS = {
    "gray PNG": ((1, 2, 4, 8, 16), "ids", make_gray_png),
    "gray PNG with tRNS": ((1, 2, 4, 8, 16), "ids", lambda i, b, e: make_gray_png(i, b, e, (b"tRNS", bytes((0, 1))))),
    "PNG with opaque alpha": ((8,), "ids", make_opaque_png),
    "palette PNG": ((1, 2, 4, 8), "palette", make_palette_png),
    "palette PNG with tRNS": ((1, 2, 4, 8), "palette", lambda i, b, e: make_palette_png(i, b, e, (b"tRNS", b"\0"))),
    "bilevel TIFF": ((1,), "ids", lambda i, b, e: save(Image.fromarray(i > 0), "TIFF", exif=e)),
    "fax TIFF": ((1,), "ids", lambda i, b, e: save(Image.fromarray(i > 0), "TIFF", exif=e, compression="group4")),
    "gray TIFF": ((8, 16), "ids", lambda i, b, e: save(Image.fromarray(i.astype(f"u{b // 8}")), "TIFF", exif=e)),
    "palette TIFF": ((8,), "palette", lambda i, b, e: save(make_palette_image(i), "TIFF", exif=e)),
    "bilevel BMP": ((1,), "ids", lambda i, b, e: save(Image.fromarray(i > 0), "BMP")),
    "gray BMP": ((8,), "ids", lambda i, b, e: save(Image.fromarray(i), "BMP")),
    "palette BMP": ((8,), "palette", lambda i, b, e: save(make_palette_image(i), "BMP")),
    "bitmap": ((1,), "ids", lambda i, b, e: save(Image.fromarray(i > 0), "PPM")),
    "graymap": ((8,), "ids", lambda i, b, e: save(Image.fromarray(i), "PPM")),
}  # fmt: skip
"""Form → bits per sample, encoding, and a writer of ids, bits and EXIF data."""


@pytest.mark.parametrize("name", WRITERS)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(data=st.data())
def test_samples_are_read_as_they_are_stored(name: str, data: st.DataObject) -> None:
    depths, encoding, write = WRITERS[name]
    bit_depth = data.draw(st.sampled_from(depths), label="bits")
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 19)), label="shape")
    seed = data.draw(st.integers(0, 99), label="seed")
    ids = np.random.default_rng(seed).integers(0, min(256, 1 << bit_depth), shape).astype(np.uint8)
    orientation = 1 if name.endswith(("BMP", "map")) else data.draw(st.integers(1, 8), label="orientation")
    content = write(ids, bit_depth, make_exif(orientation))
    exif = Image.Exif()
    exif[274] = orientation
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(save(Image.fromarray(ids), "PNG", exif=exif)))))
    values = read(content, encoding)
    assert np.array_equal(values, upright)
    assert values.dtype == np.uint8
    if encoding == "palette" and "tRNS" not in name:
        assert np.array_equal(read(content, "colors"), pack(COLORS[upright]))
        with pytest.raises(UserError, match="with a palette"):
            read(content, "ids")
    elif bit_depth <= 8 and "TIFF" not in name and "map" not in name:
        gray = np.array(Image.open(io.BytesIO(content)).convert("RGB")) if "tRNS" not in name else None
        assert gray is None or np.array_equal(read(write(ids, bit_depth, make_exif(1)), "colors"), pack(gray))


def test_opencv_scales_few_bits() -> None:
    """The fault that the reader undoes, and black and white among colors."""
    content = make_png(np.array([[0, 1]]), 1)
    assert read(content).tolist() == [[0, 1]]
    assert read(content, "colors").tolist() == [[0, 0xFFFFFF]]
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED).tolist() == [[0, 255]]


CONVERTED = {
    "LA": (make_png(np.array([[(7, 255), (9, 255)]]), 8, GRAY_ALPHA), "ids", [[7, 9]], "alpha"),
    "LA of 16 bits": (make_png(np.array([[(7, 65535)]]), 16, GRAY_ALPHA), "ids", [[7]], "16 bits per pixel"),
    "16 bits": (make_png(np.array([[0, 255]]), 16), "ids", [[0, 255]], "16 bits per pixel"),
    "RGBA": (make_png(np.array([[(1, 2, 3, 255)]]), 8, RGBA), "colors", [[0x010203]], "alpha"),
    "LA among colors": (make_png(np.array([[(7, 255)]]), 8, GRAY_ALPHA), "colors", [[0x070707]], "one gray channel"),
    "gray among colors": (make_png(np.array([[0, 255]])), "colors", [[0, 0xFFFFFF]], "one gray channel"),
    "2 bits among colors": (make_png(np.array([[0, 1, 3]]), 2), "colors", [[0, 0x555555, 0xFFFFFF]], "one gray channel"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERTED)
def test_forms_without_loss_are_read_with_a_note(name: str) -> None:
    content, encoding, values, note = CONVERTED[name]
    label = decode_label(content, PATH, encoding)
    assert label.values.tolist() == values
    assert note in label.conversion


def test_usual_forms_have_no_note() -> None:
    for content in (make_png(np.array([[0, 200]])), make_png(np.array([[0, 1]]), 1)):
        assert decode_label(content, PATH, "ids").conversion == ""
    assert decode_label(make_png(np.array([[(1, 2, 3)]]), 8, RGB), PATH, "colors").conversion == ""


TRANSPARENT = (b"tRNS", b"\xff\x80")
REFUSED = {
    "LA that is not opaque": (make_png(np.array([[(7, 254)]]), 8, GRAY_ALPHA), "ids", "alpha is not opaque", [[7]]),
    "RGBA that is not opaque": (make_png(np.array([[(1, 2, 3, 0)]]), 8, RGBA), "colors", "alpha is not opaque", [[0x010203]]),
    "equal channels": (make_png(np.array([[(7, 7, 7)]]), 8, RGB), "ids", "not one 8-bit channel", [[7]]),
    "opaque equal channels": (make_png(np.array([[(7, 7, 7, 255)]]), 8, RGBA), "ids", "not one 8-bit channel", [[7]]),
    "transparent palette": (
        make_png(np.array([[0, 1]]), 8, PALETTE, [(b"PLTE", bytes((1, 2, 3, 4, 5, 6))), TRANSPARENT]),
        "colors", "transparent", [[0x010203, 0x040506]],
    ),
    "RGB": (make_png(np.array([[(1, 2, 3)]]), 8, RGB), "ids", "not one 8-bit channel .*check` proposes", None),
    "16 bits": (make_png(np.array([[256]]), 16), "ids", "uint16 with ids from 256 to 256", None),
    "RGB of 16 bits": (make_png(np.array([[(1, 2, 3)]]), 16, RGB), "colors", "not three 8-bit channels", None),
    "TIFF of 16 bits": (save(Image.fromarray(np.full((1, 1), 300, np.uint16)), "TIFF"), "ids", "ids from 300", None),
    "fractions": (save(Image.fromarray(np.full((1, 1), 0.5, np.float32)), "TIFF"), "ids", "float32", None),
    "CMYK": (save(Image.new("CMYK", (1, 1)), "TIFF"), "colors", "stored as CMYK", None),
    "index without color": (make_png(np.array([[2]]), 8, PALETTE, [(b"PLTE", bytes(6))]), "colors", "beyond its 2 colors", None),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", REFUSED)
def test_other_forms_are_refused_with_a_cure(name: str, tmp_path: Path) -> None:
    """Where a command converts the label, it gives the right values."""
    content, encoding, message, values = REFUSED[name]
    path = tmp_path / "it's a label.png"
    with pytest.raises(UserError, match=message) as error:
        decode_label(content, path, encoding)
    assert "\n" not in str(error.value)
    command = re.search(r"`(python -c .*\.save\(f\)')`", str(error.value))
    assert (command is not None) == (values is not None)
    if command is not None:
        path.write_bytes(content)
        exec(shlex.split(command[1])[2], {})
        assert decode_label(path.read_bytes(), path, encoding).values.tolist() == values


@pytest.mark.parametrize(
    "name", ["gray PNG", "palette PNG", "gray TIFF", "bilevel TIFF", "palette TIFF", "gray BMP", "palette BMP"]
)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_labels_are_reported(name: str, data: st.DataObject) -> None:
    """Truncated labels are refused, and a flipped bit is found where the format has checksums; no damage ends in a traceback."""
    depths, encoding, write = WRITERS[name]
    bit_depth = data.draw(st.sampled_from(depths), label="bits")
    ids = np.kron(np.arange(24).reshape(4, 6) % min(5, 1 << bit_depth), np.ones((5, 5), int)).astype(np.uint8)
    content = write(ids, bit_depth, make_exif(3))
    expected = read(content, encoding)
    padding = 2 if "BMP" in name else 0  # of the last row, which holds no pixels
    with pytest.raises(DamagedFileError):
        read(content[: data.draw(st.integers(0, len(content) - 1 - padding), label="length")], encoding)
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, len(content) - 1), label="position")] ^= 1 << data.draw(
        st.integers(0, 7), label="bit"
    )
    try:
        label = decode_label(bytes(damaged), PATH, encoding)
    except UserError:
        return
    if "PNG" in name:
        assert np.array_equal(label.values, expected)
        assert not label.palette or label.palette == decode_label(content, PATH, encoding).palette


def test_huge_palette_is_reported() -> None:
    content = make_png(np.zeros((1, 8)), 8, PALETTE, [(b"PLTE", bytes(6))])
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 70000, 8, PALETTE, 0, 0, 0))
    with pytest.raises(DamagedFileError, match="70000×60000, more than"):
        read(content[:8] + header + content[8 + len(header) :], "palette")
