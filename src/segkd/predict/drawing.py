"""Pictures of what was seen, what is true, and what networks say: coloured, laid over the image, side by side, with a legend."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Array = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

_GAP, _CAPTION, _PAPER, _INK = 6, 24, (255, 255, 255), (30, 30, 30)
_BOX, _FONT = 14, 14


def colorize(labels: Array, colors: Sequence[Color]) -> Array:
    """Classes H W as RGB, H W 3; white where a label is no class."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(colors)] = colors
    return palette[labels]


def blend(image: Array, colors: Array, opacity: float) -> Array:
    """Colours over an image, both RGB H W 3: opacity 0 shows the image alone, 1 the colours."""
    mixed: Array = np.rint(image + opacity * (colors.astype(np.float32) - image)).astype(np.uint8)
    return mixed


def draw_legend(classes: Mapping[str, Color], width: int) -> Image.Image:
    """The classes' colours with their names, in as many rows as the width needs."""
    font = ImageFont.load_default(size=_FONT)
    step = _BOX + 3 * _GAP + int(max((font.getlength(name) for name in classes), default=0))
    columns = min(max(1, width // step), max(1, len(classes)))
    step = max(step, (width - _GAP) // columns)
    sheet = Image.new("RGB", (width, _CAPTION * -(-len(classes) // columns)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (name, color) in enumerate(classes.items()):
        x, y = _GAP + place % columns * step, place // columns * _CAPTION + _CAPTION // 2
        draw.rectangle((x, y - _BOX // 2, x + _BOX, y + _BOX // 2), color)
        draw.text((x + _BOX + _GAP, y), name, _INK, font, anchor="lm")
    return sheet


def image_grid(columns: Mapping[str, Sequence[Array]], classes: Mapping[str, Color], scale: int = 2) -> Image.Image:
    """A row for each picture, a captioned column for each name, and the classes' legend, if there are any, beneath.

    Args:
        columns: caption → RGB pictures H W 3, all of one size, as many in each column.
        classes: class → colour.
        scale: whole-number enlargement.
    """
    height, width = (scale * side for side in next(iter(columns.values()))[0].shape[:2])
    rows = len(next(iter(columns.values())))
    sheet_width = len(columns) * (width + _GAP) + _GAP
    key = draw_legend(classes, sheet_width)
    sheet = Image.new("RGB", (sheet_width, _CAPTION + rows * (height + _GAP) + key.height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT)
    for column, (caption, pictures) in enumerate(columns.items()):
        x = _GAP + column * (width + _GAP)
        draw.text((x + width // 2, _CAPTION // 2 + 1), caption, _INK, font, anchor="mm")
        for row, picture in enumerate(pictures):
            enlarged = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (x, _CAPTION + row * (height + _GAP)))
    sheet.paste(key, (0, sheet.height - key.height))
    return sheet


def data_uri(picture: Array) -> str:
    """A picture as a `data:` address, a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
