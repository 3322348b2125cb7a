"""Values of earlier versions: refused with today's value where they are typed."""

from __future__ import annotations

from typing import Any

import pytest

from segkd.config.renamed_values import RENAMED_VALUES, check_values, update_value
from segkd.errors import UserError
from tests.helpers.commands import Command

LOSS: dict[str, Any] = {"loss": {"hint": {"feature": "scores"}}}


@pytest.mark.parametrize(("key", "old"), [(key, old) for key, values in RENAMED_VALUES.items() for old in values])
def test_value_is_updated_under_its_key_only(key: str, old: str) -> None:
    new = RENAMED_VALUES[key][old]
    assert update_value(f"part.{key}", old) == update_value(key, old) == update_value(key, new) == new
    assert update_value("name", old) == old
    with pytest.raises(UserError, match=f"^part.{key}: '{old}' is now '{new}'$"):
        check_values({"part": {key: old}})
    check_values({"part": {key: new, "name": old}})


def test_feature_that_an_adapter_names_scores_is_its_own() -> None:
    with pytest.raises(UserError, match="'scores' is now 'kd_logits'"):
        check_values({**LOSS, "student": {"features": {"encoder": "body"}}})
    check_values({**LOSS, "student": {"features": {"scores": "head"}}})


@pytest.mark.parametrize(
    ("command_name", "arguments", "sentence"),
    [
        ("evaluate", ("model=adapter", "checkpoint=included"), "checkpoint: 'included' is now 'pretrained'"),
        ("calibrate", ("shares={holistic: 0.3}",), "shares: the term 'holistic' is now 'adversarial'"),
        ("study", ("plan=demo", "stages=[carry]"), "stages: the stage 'carry' is gone; copy the runs with tar"),
        ("study", ("plan=demo", "carry.to=x"), "there is no key 'carry.to'; the stage is gone; copy the runs with tar"),
    ],
)
def test_command_names_what_replaces_a_value(
    command: Command, command_name: str, arguments: tuple[str, ...], sentence: str
) -> None:
    result = command(command_name, *arguments)
    assert result.code == 2
    assert sentence in result.err
