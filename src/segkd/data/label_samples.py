"""The samples of label files as they are stored, whatever the format: not scaled, and turned upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from segkd.data.image_header import (
    PNG_GRAY,
    PNG_GRAY_ALPHA,
    PNG_PALETTE,
    PNG_RGB,
    count_full_pages,
    is_png_intact,
    is_tiff,
    open_with_pillow,
    read_exif_orientation,
    read_png_header,
    turn_upright,
)
from segkd.data.image_io import MAX_PIXELS, Color, decode_image, make_damage_error
from segkd.data.label_commands import make_command
from segkd.data.netpbm import decode_netpbm, is_netpbm
from segkd.errors import UserError

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of a TIFF
_WHITE_IS_ZERO = 0  # photometric
_PILLOW_MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "F")


class StoredLabel(NamedTuple):
    """The samples of a label file."""

    samples: npt.NDArray[Any]
    """H W, or H W C: gray and alpha, RGB, or RGBA."""
    maximum: int
    """Largest value that a sample can have."""
    palette: tuple[Color, ...] = ()
    """Colors, if the samples are indices."""
    alpha_by_index: dict[int, int] = {}
    """Palette index → alpha, 0 to 255, where the palette has any."""
    is_white_zero: bool = False
    """Whether 0 is white and the maximum black, which matters to colors alone."""


def read_stored_label(content: bytes, path: Path) -> StoredLabel:
    """Decode the bytes of a label file.

    Raises:
        DamagedFileError: The bytes are not a complete image.
        UserError: The image is of a kind that no label has.
    """
    header = read_png_header(content)
    if is_netpbm(content):
        try:
            return StoredLabel(*decode_netpbm(content))
        except ValueError:
            raise make_damage_error(content, path) from None
    has_palette = header is not None and header.color_type == PNG_PALETTE
    if has_palette or is_tiff(content) or content[:2] == b"BM":
        # OpenCV returns the colors of a palette, and scales the samples of other files that have less than 8 bits.
        return _read_with_pillow(content, path)
    image: npt.NDArray[Any] = decode_image(content, path, cv2.IMREAD_UNCHANGED)
    bit_depth = header.bit_depth if header else 8 * image.itemsize
    if image.ndim == 3:
        # A color that tRNS declares transparent can be alpha in OpenCV; it tells nothing that the color does not.
        samples_by_type = {PNG_GRAY: [0], PNG_GRAY_ALPHA: [0, 3], PNG_RGB: [2, 1, 0]}
        samples = [2, 1, 0, 3][: image.shape[2]]
        image = image[..., samples_by_type.get(header.color_type, samples) if header else samples]
        image = image[..., 0] if image.shape[2] == 1 else image
    return _undo_scaling(image, bit_depth)


def _undo_scaling(samples: npt.NDArray[Any], bit_depth: int) -> StoredLabel:
    """Return samples that a decoder has scaled to 8 bits if they had less."""
    maximum = (1 << bit_depth) - 1
    return StoredLabel(samples if bit_depth >= 8 else samples // (255 // maximum), maximum)


def _read_with_pillow(content: bytes, path: Path) -> StoredLabel:
    try:
        image = open_with_pillow(content)
        if image is None or image.width * image.height > MAX_PIXELS:
            raise ValueError
        if (pages := count_full_pages(image)) > 1:
            raise UserError(_explain_pages(path, pages))
        image.load()
        samples = _turn_upright(image, content)
    except UserError:
        raise
    except Exception:  # Pillow fails in many ways on damaged bytes
        raise make_damage_error(content, path) from None
    if read_png_header(content) and not is_png_intact(content, check_pixels=True):
        raise make_damage_error(content, path)
    if image.mode not in _PILLOW_MODES:
        raise UserError(f"label {path} is stored as {image.mode}, not as ids or colors; save it as PNG")
    if image.mode == "P":
        return StoredLabel(samples, 255, _read_palette(image), _read_palette_alpha(image))
    bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) if isinstance(image, TiffImageFile) else 8
    if image.mode == "1":
        stored = StoredLabel(samples.astype(np.uint8), 1)
    elif bits > 8:  # Pillow reduces colors to 8 bits
        stored = StoredLabel(samples if samples.itemsize > 1 else samples.astype(np.uint16), (1 << bits) - 1)
    else:
        stored = _undo_scaling(samples, bits)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow turns up to 8 bits over, so that 0 is black, and leaves more as they are.
        samples = stored.maximum - stored.samples if bits <= 8 else stored.samples
        return stored._replace(samples=samples, is_white_zero=True)
    return stored


def _explain_pages(path: Path, pages: int) -> str:
    command = make_command(path, "i.seek(0); i", in_place=False)
    return f"label {path} has {pages} pages, and a label is one; save the page that holds it, of which 0 is the first, with {command}"


def _turn_upright(image: ImageFile.ImageFile, content: bytes) -> npt.NDArray[Any]:
    if isinstance(image, TiffImageFile):
        return np.array(ImageOps.exif_transpose(image))
    return turn_upright(np.array(image), read_exif_orientation(content))


def _read_palette(image: ImageFile.ImageFile) -> tuple[Color, ...]:
    flat = image.getpalette() or []
    return tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3))


def _read_palette_alpha(image: ImageFile.ImageFile) -> dict[int, int]:
    transparency = image.info.get("transparency", b"")  # one index, or the alpha of the first indices
    return {transparency: 0} if isinstance(transparency, int) else dict(enumerate(transparency))
