"""Commands, in error messages, that convert a label file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

_KEPT_SUFFIXES = (".png", ".bmp", ".dib", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm")
"""Suffixes of files whose pixels stay as they are when Pillow saves them again."""


def make_command(path: Path, expression: str, in_place: bool = True) -> str:
    """Return a command that computes a Pillow image from the one in a file, and saves it.

    Args:
        path: The file.
        expression: What to compute from the image `i`, such as `i.convert("RGB")`.
        in_place: Replace the file, if its format keeps pixels as they are; otherwise write a PNG beside it.
    """
    is_kept = in_place and path.suffix.lower() in _KEPT_SUFFIXES
    target = "f" if is_kept else json.dumps(str(path.with_suffix(".png")), ensure_ascii=False)
    program = f"from PIL import Image; f = {json.dumps(str(path), ensure_ascii=False)}; i = Image.open(f); {expression}.save({target})"
    return f"`python -c {shlex.quote(program)}`"
