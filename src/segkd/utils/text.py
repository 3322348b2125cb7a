"""Text that users chose, such as names of classes, files and runs, as it is shown."""

from __future__ import annotations

import unicodedata

_CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # controls, lone surrogates, and separators of lines and paragraphs
_DIRECTION_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def escape_controls(text: str) -> str:
    r"""Return the text in one line, with controls of terminal, line and writing direction as escapes such as `\\n`."""
    return text if text.isprintable() else "".join(map(_escape_control, text))


def _escape_control(character: str) -> str:
    is_control = (
        unicodedata.category(character) in _CONTROL_CATEGORIES
        or unicodedata.bidirectional(character) in _DIRECTION_CONTROLS
    )
    return character.encode("unicode_escape").decode() if is_control else character
