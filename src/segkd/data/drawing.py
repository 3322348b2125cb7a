"""Drawing: colored classes, overlays, grids of images and legends."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segkd.data.image_io import Array, Color

_GAP, _CAPTION_HEIGHT, _BACKGROUND, _TEXT_COLOR = 6, 24, (255, 255, 255), (30, 30, 30)
_BOX, _FONT_SIZE = 14, 14
_BLEND_ROWS = 64


def colorize(labels: Array, colors: Sequence[Color], other: Color = (255, 255, 255)) -> Array:
    """Return class indices (H W) as RGB (H W 3), in the color `other` if an index is not a class."""
    palette = np.full((256, 3), other, np.uint8)
    palette[: len(colors)] = colors
    return palette[labels]


def blend(image: Array, colors: Array, opacity: float) -> Array:
    """Blend colors over an image, both RGB H W 3: opacity 0 is the image, 1 the colors."""
    mixed = np.empty(image.shape, np.uint8)
    for start in range(0, len(image), _BLEND_ROWS):  # floats of a whole image would take a gigabyte at 24 megapixels
        rows = slice(start, start + _BLEND_ROWS)
        mixed[rows] = np.rint(image[rows] + opacity * (colors[rows].astype(np.float32) - image[rows]))
    return mixed


def draw_legend(classes: Mapping[str, Color], width: int) -> Image.Image:
    """Draw the colors and names of the classes, in as many rows as the width needs."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    step = _BOX + 3 * _GAP + int(max((font.getlength(name) for name in classes), default=0))
    columns = min(max(1, width // step), max(1, len(classes)))
    step = max(step, (width - _GAP) // columns)
    sheet = Image.new("RGB", (width, _CAPTION_HEIGHT * -(-len(classes) // columns)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (name, color) in enumerate(classes.items()):
        x, y = _GAP + index % columns * step, index // columns * _CAPTION_HEIGHT + _CAPTION_HEIGHT // 2
        outline = _TEXT_COLOR if tuple(color) == _BACKGROUND else None
        draw.rectangle((x, y - _BOX // 2, x + _BOX, y + _BOX // 2), color, outline)
        draw.text((x + _BOX + _GAP, y), name, _TEXT_COLOR, font, anchor="lm")
    return sheet


def draw_image_grid(
    columns: Mapping[str, Sequence[Array]], classes: Mapping[str, Color], scale: int = 2
) -> Image.Image:
    """Draw captioned columns of images, with the legend of the classes, if there are any, below.

    Args:
        columns: caption → RGB images H W 3, all of one size, the same number in each column.
        classes: class → color.
        scale: integer factor by which images are enlarged.
    """
    height, width = (scale * side for side in next(iter(columns.values()))[0].shape[:2])
    rows = len(next(iter(columns.values())))
    sheet_width = len(columns) * (width + _GAP) + _GAP
    legend = draw_legend(classes, sheet_width)
    sheet = Image.new("RGB", (sheet_width, _CAPTION_HEIGHT + rows * (height + _GAP) + legend.height), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT_SIZE)
    for column, (caption, images) in enumerate(columns.items()):
        x = _GAP + column * (width + _GAP)
        draw.text((x + width // 2, _CAPTION_HEIGHT // 2 + 1), caption, _TEXT_COLOR, font, anchor="mm")
        for row, image in enumerate(images):
            enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (x, _CAPTION_HEIGHT + row * (height + _GAP)))
    sheet.paste(legend, (0, sheet.height - legend.height))
    return sheet


def encode_data_uri(image: Array) -> str:
    """Return an image as a `data:` URI, encoded as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
