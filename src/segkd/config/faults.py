"""Say what is wrong with the values of a config: which key, what it takes, and the nearest value that it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from segkd.config.values import explain_values, format_default, format_values, list_literals, suggest_value
from segkd.utils.plugins import explain_plugins_key

_RANGES = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def describe_faults(settings: type[BaseModel], config: Mapping[str, Any], error: ValidationError) -> str:
    """Return one sentence for each key that is wrong, joined by semicolons.

    Args:
        settings: the class that refused the config.
        config: what it was given.
        error: its error.
    """
    faults: dict[str, list[Any]] = {}
    for fault in error.errors():
        faults.setdefault(_find_field(settings, fault["loc"])[0], []).append(fault)
    sentences = [text for key, of_key in faults.items() for text in _describe(settings, config, key, of_key)]
    return "; ".join(dict.fromkeys(sentences))  # each sentence once


def _describe(settings: type[BaseModel], config: Mapping[str, Any], key: str, faults: list[Any]) -> list[str]:
    """Return the sentences about one key; the alternatives of its type have a fault each."""
    location = tuple(key.split("."))
    field, value = _find_field(settings, location)[1], _select(config, location)[1]
    if own := [fault for fault in faults if fault["type"] == "value_error"]:  # finished sentences
        return [
            f"{_select(config, fault['loc'])[0]}: {fault['msg'].removeprefix('Value error, ')}{_name_given(fault['input'])}"
            for fault in own
        ]
    if key == "plugins":
        return [explain_plugins_key()]
    if field is None:
        return [f"there is no key '{key}'"]
    annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    values = explain_values(_get_values(field))
    if literals := list_literals(annotation):
        values = re.sub(r"\[NAME,…\]|NAME", rf"\g<0> of {', '.join(literals)}", values)
    if any(fault["type"] == "missing" and fault["loc"] == location for fault in faults):
        return [f"{key} is missing; it takes {values}"]
    if nested := _get_nested(field):
        return [
            f"{key}={format_default(value)}: it has keys of its own, as in {key}.{next(iter(nested.model_fields))}=VALUE"
        ]
    if ranges := [fault for fault in faults if fault["type"] in _RANGES]:
        name, given = _select(config, ranges[0]["loc"])
        return [f"{name} must be {ranges[0]['msg'].removeprefix('Input should be ')}{_name_given(given)}"]
    if value is None:
        return [f"{key} needs a value; it takes {values}"]
    hint = suggest_value(key, value, annotation)
    return [f"{key}={format_default(value)}: it takes {values}{hint}"]


def _find_field(settings: type[BaseModel], location: tuple[Any, ...]) -> tuple[str, FieldInfo | None]:
    """Return the key at a location, without what pydantic adds for elements and alternatives, and its field."""
    parts: list[str] = []
    field: FieldInfo | None = None
    current: type[BaseModel] | None = settings
    for part in map(str, location):
        if current is None:
            break
        parts.append(part)
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        field = fields.get(part)
        current = _get_nested(field) if field is not None else None
    return ".".join(parts), field


def _get_nested(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if inspect.isclass(annotation) and issubclass(annotation, BaseModel) else None


def _get_values(field: FieldInfo) -> str:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if "values" in extra:
        return str(extra["values"])
    try:
        return format_values(field.annotation)
    except KeyError:  # a part, or a mapping of parts
        return "VALUE"


def _select(config: Any, location: tuple[Any, ...]) -> tuple[str, Any]:
    """Return the key and the value at a location, without what pydantic adds for the alternatives of a type."""
    parts = []
    for part in location:
        is_element = isinstance(config, list) and isinstance(part, int) and part < len(config)
        if is_element or (isinstance(config, Mapping) and part in config):
            config = config[part]
            parts.append(str(part))
    return ".".join(parts), config


def _name_given(value: Any) -> str:
    return "" if isinstance(value, dict) else f" (given: {format_default(value)})"
