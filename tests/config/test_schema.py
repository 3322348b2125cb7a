"""Faults of a config are one sentence each."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from omegaconf import OmegaConf
from pydantic import PlainValidator

from segkd.config.schema import Settings, load_settings
from segkd.errors import UserError


def refuse(value: Any) -> Any:
    raise ValueError("is refused")


class TwoAlternatives(Settings):
    part: Annotated[int, PlainValidator(refuse)] | Annotated[str, PlainValidator(refuse)]
    count: int


def test_a_fault_of_all_alternatives_is_said_once() -> None:
    with pytest.raises(UserError) as error:
        load_settings(OmegaConf.create({"part": 1, "count": "many", "other": 2}), TwoAlternatives)
    sentences = str(error.value).split("; ")
    assert sentences[0] == "part: is refused (given: 1)"
    assert sentences[1] == "count=many: it takes a whole number, as in count=8"
    assert sentences[2:] == ["there is no key 'other'"]
