"""Pictures side by side: what was seen, what is true, and what networks say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Array = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

_GAP, _CAPTION, _PAPER, _INK = 6, 24, (255, 255, 255), (30, 30, 30)


def colored(labels: Array, colors: Sequence[Color]) -> Array:
    """Classes H W as RGB, H W 3; white where a label is no class."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(colors)] = colors
    return palette[labels]


def gallery(columns: Mapping[str, Sequence[Array]], legend: Mapping[str, Color], scale: int = 2) -> Image.Image:
    """A row for each picture, a captioned column for each name, and the classes' colours beneath.

    Args:
        columns: caption → RGB pictures H W 3, all of one size, as many in each column.
        legend: class → colour.
        scale: whole-number enlargement.
    """
    height, width = (scale * side for side in next(iter(columns.values()))[0].shape[:2])
    rows = len(next(iter(columns.values())))
    sheet_width = len(columns) * (width + _GAP) + _GAP
    sheet = Image.new("RGB", (sheet_width, 2 * _CAPTION + rows * (height + _GAP) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for column, (caption, pictures) in enumerate(columns.items()):
        x = _GAP + column * (width + _GAP)
        draw.text((x + width // 2, _CAPTION // 2 + 1), caption, _INK, font, anchor="mm")
        for row, picture in enumerate(pictures):
            enlarged = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (x, _CAPTION + row * (height + _GAP)))
    step = (sheet_width - _GAP) / len(legend)
    top = sheet.height - _CAPTION + 4
    for place, (name, color) in enumerate(legend.items()):
        x = int(_GAP + place * step)
        draw.rectangle((x, top, x + 14, top + 14), color)
        draw.text((x + 20, top + 7), name, _INK, font, anchor="lm")
    return sheet
