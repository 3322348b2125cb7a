"""Values of keys that earlier versions called otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator


def refuse_renamed(renamed: Mapping[str, str]) -> BeforeValidator:
    """Return a validator that refuses an old value and names the new one.

    Args:
        renamed: old value → new value.
    """

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in renamed:
            raise ValueError(f"'{value}' is now called '{renamed[value]}'")
        return value

    return BeforeValidator(check)
