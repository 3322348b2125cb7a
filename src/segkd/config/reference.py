"""Describe the keys of a settings class: what each takes, its default, and what it means."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from segkd.config.instantiate import Spec
from segkd.config.paths import list_options
from segkd.config.schema import Settings
from segkd.config.values import MAX_INLINE_OPTIONS, format_default, format_values

MAX_LISTED_OPTIONS = 9
"""More options than these are not listed at all; `--help` prints the options of every group."""


class KeyDoc(NamedTuple):
    """One key of a command."""

    key: str
    values: str
    """What it takes, alternatives separated by `|`: `N`, `X`, `DIR`, `a|b`, `[NAME,…]|null`."""
    default: str
    description: str
    in_help: bool = True


class KeyTable(NamedTuple):
    """The keys of one settings class."""

    title: str
    keys: list[KeyDoc]


def describe_settings(
    settings: type[Settings],
    config: Mapping[str, Any],
    choices: Mapping[str, Any],
    extra_keys: Mapping[str, list[KeyDoc]] | None = None,
) -> list[KeyTable]:
    """Return the keys of a settings class in tables: its own, and those of each nested class.

    Keys that the class inherits from other settings are left out.

    Args:
        settings: the class.
        config: the composed config, unresolved.
        choices: config group → chosen option.
        extra_keys: keys that no field has, by the key after which they are listed; "" for the first.
    """
    extra_keys = extra_keys or {}
    title = (inspect.getdoc(settings) or "").partition("\n")[0].rstrip(".")
    tables = [KeyTable(title, [*extra_keys.get("", [])])]
    for name in inspect.get_annotations(settings):
        field = settings.model_fields[name]
        if nested := _find_nested_settings(field):
            keys = [*extra_keys.get(f"{name}.", []), *_describe_nested(nested, name, config[name], extra_keys)]
            tables.append(KeyTable((inspect.getdoc(nested) or "").rstrip("."), keys))
        else:
            key = field.alias or name  # a key may be a keyword of Python
            doc = _describe_field(key, field, config.get(key), choices)
            tables[0].keys.extend([doc, *extra_keys.get(doc.key, [])])
    return [table for table in tables if table.keys]


def format_options(options: list[str], default: str) -> tuple[str, list[str]]:
    """Return the values of a key that chooses from a config group, and the options to list in its description."""
    if len(options) <= MAX_INLINE_OPTIONS:
        return "|".join(sorted(options, key=lambda option: option != default)), []
    return "NAME", options if len(options) <= MAX_LISTED_OPTIONS else []


def read_argument_docs(target: type) -> dict[str, str]:
    """Return the descriptions of constructor arguments in the `Args:` section of a class's docstring."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", inspect.getdoc(target) or "", flags=re.MULTILINE)
    entries = re.split(r"^    (?=\w+: )", section[1] if section else "", flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}


def _describe_nested(
    settings: type[Settings], prefix: str, config: Mapping[str, Any], extra_keys: Mapping[str, list[KeyDoc]]
) -> Iterator[KeyDoc]:
    for name, field in settings.model_fields.items():
        key = f"{prefix}.{name}"
        if nested := _find_nested_settings(field):
            yield from _describe_nested(nested, key, config[name], extra_keys)
        else:
            yield _describe_field(key, field, config.get(name), {})
            yield from extra_keys.get(key, [])


def _describe_field(key: str, field: FieldInfo, value: Any, choices: Mapping[str, Any]) -> KeyDoc:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    key = str(extra.get("key", key))
    description, default = field.description or "", format_default(value)
    if _is_spec(field.annotation):
        group = key.partition("@")[0]
        default = format_default(choices[key] if key in choices else list(value))
        values, listed = format_options(list_options(group), default) if "values" not in extra else ("", [])
    else:
        values, listed = format_values(field.annotation) if "values" not in extra else "", _find_long_literal(field)
        allows_null = type(None) in (field.annotation, *get_args(field.annotation))
        default = "required" if extra.get("required") or (value is None and not allows_null) else default
    if listed:
        description = f"{description}. Names: {', '.join(listed)}"
    default = str(extra.get("default", default))
    return KeyDoc(key, str(extra.get("values", values)), default, description, bool(extra.get("help", True)))


def _find_long_literal(field: FieldInfo) -> list[str]:
    """Return the alternatives of a field that are too many for its values."""
    pending = [field.annotation]
    for annotation in pending:
        arguments = get_args(annotation)
        if get_origin(annotation) is Literal and len(arguments) > MAX_INLINE_OPTIONS:
            return [str(argument) for argument in arguments]
        pending += [arguments[0]] if get_origin(annotation) is Annotated else arguments
    return []


def _find_nested_settings(field: FieldInfo) -> type[Settings] | None:
    annotation = field.annotation
    return annotation if inspect.isclass(annotation) and issubclass(annotation, Settings) else None


def _is_spec(annotation: Any) -> bool:
    """Return whether a config group chooses the value: a spec, or several by name."""
    if get_origin(annotation) is Annotated:
        return _is_spec(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_spec(argument) for argument in get_args(annotation))
    if get_origin(annotation) is dict:
        return _is_spec(get_args(annotation)[1])
    return inspect.isclass(annotation) and issubclass(annotation, Spec)
