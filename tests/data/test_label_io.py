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


@pytest.mark.parametrize("maximum", [1, 3, 15, 100, 255, 1000])
@pytest.mark.parametrize("kind", [2, 5])
def test_graymaps_are_read_as_they_are_stored(kind: int, maximum: int) -> None:
    """As text and as bytes; OpenCV scales text to 255."""
    values = [0, 1, min(2, maximum), min(3, maximum)]
    header = f"P{kind}\n# made by hand\n4 1 # size\n{maximum}\n".encode()
    raw = b"".join(value.to_bytes(1 if maximum < 256 else 2) for value in values)
    content = header + (" ".join(map(str, values)).encode() if kind == 2 else raw)
    assert read(content).tolist() == [values]
    note = decode_label(content, PATH, "ids").conversion
    assert note == ("" if maximum < 256 else "16 bits per pixel, with ids below 256")
    if maximum < 256:
        grays = [int(value * 255 / maximum + 0.5) for value in values]
        assert read(content, "colors").tolist() == [[gray * 0x010101 for gray in grays]]
    if kind == 2 and maximum == 3:
        scaled = cv2.imdecode(np.frombuffer(content + b"\n", np.uint8), cv2.IMREAD_UNCHANGED)
        assert scaled.tolist() == [[0, 85, 170, 255]]


@pytest.mark.parametrize("content", [b"P1\n9 2\n011000001\n1 0 0 1 0 0 0 0 1", b"P4\n9 2\n\x60\x80\x90\x80"])
def test_black_of_a_bitmap_is_0_as_image_libraries_read_it(content: bytes) -> None:
    """In the file it is 1."""
    expected = [[1, 0, 0, 1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 1, 1, 1, 0]]
    assert read(content).tolist() == expected
    assert np.array(Image.open(io.BytesIO(content))).astype(int).tolist() == expected
    assert read(content, "colors").tolist() == [[0xFFFFFF * value for value in row] for row in expected]


def test_pixmaps_are_colors() -> None:
    assert read(b"P3 2 1 15\n0 1 15 3 3 3", "colors").tolist() == [[0x0011FF, 0x333333]]
    assert read(b"P6 2 1 255\n\1\2\3\4\5\6", "colors").tolist() == [[0x010203, 0x040506]]
    with pytest.raises(UserError, match="not one 8-bit channel"):
        read(b"P6 1 1 255\n\1\2\3")


@pytest.mark.parametrize(
    "content",
    [
        b"P5\n4 1\n255\n\0\1\2", b"P5\n4 1\n3\n\0\1\2\4", b"P2\n4 1\n3\n0 1 2", b"P2\n4 1\n3\n0 1 2 4", b"P2\n2 1\n3\n0 x", b"P5\n4",
        b"P5\n0 4\n255\n", b"P5\n1 1\n0\n\0", b"P5\n1 1\n65536\n\0\0", b"P4\n9 2\n\0\0\0", b"P2\n2 1\n3\n0 -1",
        b"P5\n9999999 9999999\n255\n",
        b"P5 " + b"#" * 5000,
    ],
)  # fmt: skip
def test_damaged_netpbm_files_are_reported(content: bytes) -> None:
    with pytest.raises(DamagedFileError, match="is not a complete image"):
        read(content)


def make_tiff(values: list[int], bits: int, photometric: int, subfile: int = 0) -> bytes:
    """An uncompressed TIFF of one row, by hand."""
    packed = sum(value << bits * i for i, value in enumerate(reversed(values)))
    data = packed.to_bytes(len(values) * bits // 8)
    if bits == 16:
        data = np.array(values, "<u2").tobytes()
    entries = {
        254: subfile,
        256: len(values),
        257: 1,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 1,
        279: len(data),
    }
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_white_is_zero_does_not_change_ids(bits: int, photometric: int) -> None:
    """Pillow turns TIFFs of up to 8 bits over, and not those of 16."""
    values = [value % (1 << bits) for value in (0, 1, 2, 3, 0, 0, 1, 1)]
    content = make_tiff(values, bits, photometric)
    assert read(content).tolist() == [values]
    assert ("WhiteIsZero" in decode_label(content, PATH, "ids").conversion) == (photometric == 0)
    shown = np.array(Image.open(io.BytesIO(content)).convert("L")).tolist() if bits < 16 else None
    if shown is not None:
        assert read(content, "colors").tolist() == [[gray * 0x010101 for gray in shown[0]]]
        assert (shown[0][0] == 255) == (photometric == 0)


def test_a_label_of_several_pages_is_refused(tmp_path: Path) -> None:
    """With a command that saves one; smaller copies, as of GeoTIFFs, are no pages."""
    path = tmp_path / "label.tif"
    pages = [Image.fromarray(np.full((4, 6), value, np.uint8)) for value in (1, 2, 3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="has 3 pages, and a label is one; save the page that holds it") as error:
        decode_label(path.read_bytes(), path, "ids")
    command = re.search(r"`(python -c .*)`", str(error.value))
    assert command is not None
    exec(shlex.split(command[1])[2].replace("seek(0)", "seek(2)"), {})
    assert (decode_label((tmp_path / "label.png").read_bytes(), path, "ids").values == 3).all()
    first, small = make_tiff([5, 6], 8, 1), make_tiff([7], 8, 1, subfile=1)
    start = len(first)
    moved = bytearray(small[8:])
    table = len(moved) - (2 + 10 * 12 + 4)
    struct.pack_into("<I", moved, table + 2 + 6 * 12 + 8, start)  # the offset of its pixel
    both = first[:-4] + struct.pack("<I", start + table) + bytes(moved)
    assert Image.open(io.BytesIO(both)).n_frames == 2
    assert read(both).tolist() == [[5, 6]]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".jp2"])
def test_a_command_does_not_save_with_loss(tmp_path: Path, suffix: str) -> None:
    content = make_png(np.arange(64, dtype=np.uint8).reshape(8, 8)[..., None].repeat(3, 2), 8, RGB)
    path = tmp_path / f"label{suffix}"
    path.write_bytes(content)  # the bytes say what it is
    with pytest.raises(UserError, match=r"take its first channel with `python -c") as error:
        decode_label(content, path, "ids")
    command = re.search(r"`(python -c '.*?')`", str(error.value))
    assert command is not None
    exec(shlex.split(command[1])[2], {})
    assert path.read_bytes() == content
    assert read((tmp_path / "label.png").read_bytes()).ravel().tolist() == [*range(64)]


def test_alpha_that_may_mean_something_is_cautioned() -> None:
    for content, encoding in (
        (REFUSED["LA that is not opaque"][0], "ids"),
        (make_png(np.array([[(7, 7, 7, 3)]]), 8, RGBA), "ids"),
    ):
        with pytest.raises(UserError, match="take its first channel, if its alpha means nothing, with"):
            read(content, encoding)
    with pytest.raises(UserError, match="take its first channel with"):
        read(REFUSED["opaque equal channels"][0])


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
