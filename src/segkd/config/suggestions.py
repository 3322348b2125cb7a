"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib


def explain_unknown_name(kind: str, name: str, known: list[str]) -> str:
    """Return the sentence for a name that does not exist: the closest one, or all there are."""
    hint = suggest(name, known) or f"; there are {', '.join(known) or 'none'}"
    return f"there is no {kind} called '{name}'{hint}"


def suggest(name: str, known: list[str]) -> str:
    """Return "; did you mean …?" with the closest name; nothing, where none is close."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
