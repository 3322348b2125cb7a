"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib


def unknown_name_message(kind: str, name: str, known: list[str]) -> str:
    """The sentence for a name that nothing has."""
    return f"there is no {kind} called '{name}'{suggest(name, known)}; there are {', '.join(known)}"


def suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
