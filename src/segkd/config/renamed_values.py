"""Values of keys that earlier versions called otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator

from segkd.config.keys import flatten
from segkd.errors import UserError

RENAMED_VALUES = {
    "update_first": {"critic_first": "discriminator", "student_first": "student"},
    "checkpoint": {"included": "pretrained"},
    "feature": {"scores": "kd_logits"},
}
"""Last part of a key → its value in version 0.1.0 → the value now."""


def update_value(key: str, value: Any) -> Any:
    """Return today's name of a key's value; a value that was not renamed stays."""
    return RENAMED_VALUES.get(key.rpartition(".")[2], {}).get(value, value) if isinstance(value, str) else value


def check_values(config: Mapping[str, Any]) -> None:
    """Check that a composed config has no value of an earlier version.

    Raises:
        UserError: it has some; one message lists all.
    """
    faults = [
        f"{key}: '{value}' is now '{new}'"
        for key, value in flatten(config)
        if (new := update_value(key, value)) != value and not _is_own_feature(config, value)
    ]
    if faults:
        raise UserError("; ".join(faults))


def _is_own_feature(config: Mapping[str, Any], name: str) -> bool:
    """Return whether the student is an adapter with a feature of this name."""
    student = config.get("student")
    return isinstance(student, Mapping) and name in (student.get("features") or {})


def refuse_renamed(renamed: Mapping[str, str]) -> BeforeValidator:
    """Return a validator that refuses an old value and names the new one.

    Args:
        renamed: old value → new value.
    """

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in renamed:
            raise ValueError(f"'{value}' is now '{renamed[value]}'")
        return value

    return BeforeValidator(check)
