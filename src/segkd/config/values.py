"""Values of keys: what they look like on the command line, and what a wrong one may have meant."""

from __future__ import annotations

import difflib
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

MAX_INLINE_OPTIONS = 4
"""More options than these are listed in the description of a key, and not in its form."""

_NAMES = {bool: "true|false", int: "N", float: "X", str: "TEXT", Path: "PATH", type(None): "null"}
_MEANINGS = {
    "N": "a whole number",
    "X": "a number",
    "TEXT": "a text",
    "PATH": "a path",
    "DIR": "a folder",
    "FILE": "a file",
}
_EXAMPLES: tuple[Any, ...] = (0.5, 8, True, [512, 1024], [0.5, 2.0], "NAME", ["NAME"])
"""Values of every form; the first that a key takes is its example."""


def format_values(annotation: Any) -> str:
    """Return what a value of this type looks like on the command line, alternatives separated by `|`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return format_values(arguments[0])
    if origin in (Union, types.UnionType):
        return "|".join(format_values(argument) for argument in arguments)
    if origin is Literal:
        return "|".join(map(str, arguments)) if len(arguments) <= MAX_INLINE_OPTIONS else "NAME"
    if origin is list:
        item = format_values(arguments[0])
        return f"[{item.replace('|', ',')}]" if "|" in item else f"[{item},…]"
    if origin is tuple:
        return "[H,W]" if format_values(arguments[0]) == "N" else "[MIN,MAX]"
    return _NAMES[annotation]


def format_default(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(format_default, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {format_default(part)}' for key, part in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) or "''"


def name_type(annotation: Any) -> str:
    """Return the values of a constructor's argument in words; a type that no yaml file can hold is left out of a union."""
    if get_origin(annotation) in (Union, types.UnionType):
        names = [name_type(argument) for argument in get_args(annotation) if argument in _NAMES or get_origin(argument)]
        return " or ".join(names)
    try:
        return explain_values(format_values(annotation))
    except KeyError:
        return str(getattr(annotation, "__name__", annotation))


def explain_values(values: str) -> str:
    """Return the form of a key's values in words: "[H,W] or null" for `[H,W]|null`."""
    *others, last = [_MEANINGS.get(part, part) for part in re.split(r"\|(?![^\[{]*[\]}])", values)]
    return f"{', '.join(others)} or {last}" if others else last


def suggest_value(key: str, value: Any, annotation: Any) -> str:
    """Return "; did you mean 'KEY=VALUE'?" with the value of a type that is nearest to a wrong one, or an example.

    Args:
        key: the key.
        value: what it was given.
        annotation: the type of the key, with its constraints.
    """
    adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    for candidate in _list_meanings(value, list_literals(annotation)):
        if _is_valid(candidate, adapter):
            return f"; did you mean {_format_assignment(key, candidate)}?"
    example = next((example for example in _EXAMPLES if _is_valid(example, adapter)), None)
    return f", as in {_format_assignment(key, example)}" if example is not None else ""


def _is_valid(value: Any, adapter: TypeAdapter[Any]) -> bool:
    try:
        taken = adapter.validate_python(value)
    except ValidationError:
        return False
    return isinstance(taken, bool) == isinstance(value, bool)  # true is no number


def _list_meanings(value: Any, literals: list[str]) -> Iterator[Any]:
    """Yield what a wrong value may have meant, the likeliest first."""
    yield from _list_nearest(value, literals)
    if isinstance(value, bool):
        yield int(value)
    elif isinstance(value, int | float):
        yield from (bool(value),) if value in (0, 1) else ()
        if isinstance(value, float) and abs(value) < 1e15:
            yield round(value)
    elif isinstance(value, str):
        numbers = [_to_number(text) for text in re.findall(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", value)]
        yield from _read_yaml(value)
        yield from (numbers[0],) if len(numbers) == 1 else (numbers,) if numbers else ()
        value = numbers[0] if len(numbers) == 1 else value
    if isinstance(value, list):
        is_numeric = bool(value) and all(isinstance(element, int | float) for element in value)
        yield from (value[0], [value[0], value[0]], value[:2]) if is_numeric else value[:1]
    elif value is not None:
        yield from ([value], [value, value], str(value), *([name] for name in _list_nearest(value, literals)))


def _list_nearest(value: Any, literals: list[str]) -> Iterator[Any]:
    """Yield a name, or list of names, with each replaced by the name that contains it or is close to it."""
    if isinstance(value, list):
        nearest = [next(_list_nearest(part, literals), part) for part in value]
        yield from (nearest,) if literals else ()
        return
    text = str(value).lower()
    number = next(iter(re.findall(r"\d+", text)), text)
    inside = [name for name in literals if text and (text in name.lower() or name.lower() in text or number in name)]
    yield from inside[:1] or difflib.get_close_matches(text, literals, n=1)


def list_literals(annotation: Any) -> list[str]:
    """Return the names that a type takes, alone or as elements."""
    if get_origin(annotation) is Literal:
        return [str(argument) for argument in get_args(annotation)]
    arguments = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [name for argument in arguments for name in list_literals(argument)]


def _read_yaml(text: str) -> Iterator[Any]:
    """Yield what YAML reads, such as true for `yes`, unless it is the text itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return
    if isinstance(value, bool | int | float | list):
        yield value


def _to_number(text: str) -> float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _format_assignment(key: str, value: Any) -> str:
    is_text = isinstance(value, str) and (not re.fullmatch(r"[\w/.-]+", value, re.ASCII) or any(_read_yaml(value)))
    text = f'{key}="{value}"' if is_text else f"{key}={format_default(value)}"
    return text if text == shlex.quote(text) or re.fullmatch(r"[\w.=-]+\[[\w.,-]*\]", text) else shlex.quote(text)
