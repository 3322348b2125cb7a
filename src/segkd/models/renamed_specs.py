"""Specs of networks, as `student.yaml` holds them, that version 0.1.0 wrote with other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED_ARGUMENTS = {"segkd.models.adapter.Adapter": {"taps": "features"}}
"""Constructor arguments that version 0.1.0 wrote under another name, by network."""
RENAMED_FEATURES = {"scores": "kd_logits"}
"""Features that version 0.1.0 wrote under another name, in an adapter's `taps`."""


def update_names(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with today's names in place of those of version 0.1.0."""
    renamed, arguments = RENAMED_ARGUMENTS.get(str(spec.get("network"))), spec.get("arguments")
    if renamed is None or not isinstance(arguments, Mapping):
        return dict(spec)
    updated = dict(arguments)
    for old, new in renamed.items():
        if old in updated and new not in updated:
            features = updated.pop(old) or {}
            updated[new] = {RENAMED_FEATURES.get(name, name): path for name, path in features.items()}
    return {**spec, "arguments": updated}
