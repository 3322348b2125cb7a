"""Nodes of a config: what names a class by `_target_` and holds its arguments, checked against the class and made into an object."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from segkd.errors import UserError
from segkd.models.base import SegmentationModel

ALLOWED_TARGETS = ("segkd.", "torch.optim.")
"""A config may come from somebody else: it can name these and nothing more."""

FOR_BUILD = {"checkpoint", "init_from", "class_map"}
"""Keys of a network's node that are for `networks`, not for its constructor."""
_GIVEN_BY_BUILD = {
    "num_classes",
    "normalization",
    "split",
    "complete",
    "params",
}  # arguments that follow from other parts

SpecDict = dict[str, Any]


def resolve_target(node: Mapping[str, Any]) -> Any:
    """The class that a node names.

    Raises:
        ValueError: it is not allowed, or there is no such thing.
    """
    path = str(node["_target_"])
    module, _, name = path.rpartition(".")
    if not path.startswith(ALLOWED_TARGETS) or any(part.startswith("_") for part in path.split(".")):
        raise ValueError(f"'{path}' is not allowed as _target_; only {', '.join(p + '*' for p in ALLOWED_TARGETS)} are")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ValueError(f"there is no '{path}'") from None
    if not (inspect.isclass(target) and target.__module__.startswith(ALLOWED_TARGETS)) or inspect.isabstract(target):
        raise ValueError(f"'{path}' is not a class of segkd or torch.optim that can be built")
    return target


def build_spec(node: SpecDict, **given: Any) -> Any:
    """The object that a node describes, with what only the caller knows.

    Raises:
        UserError: its class refuses a value.
    """
    arguments = {
        key: build_spec(value) if _is_node(value) else value
        for key, value in node.items()
        if key not in {"_target_", *FOR_BUILD, *given}
    }
    target = resolve_target(node)
    try:
        return target(**{**arguments, **given})
    except ValueError as error:
        raise UserError(f"{target.__name__}: {error}") from None


def accepted_keys(node: Mapping[str, Any]) -> set[str]:
    """The keys that its class takes in a config; all that it has, where it names no class that may be had."""
    try:
        target = resolve_target(node)
    except ValueError:
        return set(node)  # `parse_spec` says what is wrong with it
    for_build = FOR_BUILD if issubclass(target, SegmentationModel) else set()
    return {"_target_", *for_build, *_parameters(target)}


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def parse_spec(node: SpecDict) -> SpecDict:
    """A node whose keys and values its class takes."""
    if node.get("_target_") is None:
        return node
    target = resolve_target(node)
    known = _parameters(target)
    faults, fitting = [], dict(node)
    for key, value in node.items():
        if key == "_target_" or (key in FOR_BUILD and issubclass(target, SegmentationModel)):
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            others = f", but {', '.join(known)}" if known else " and no other key"
            faults.append(f"{target.__name__} takes no '{key}'{hint}{others}")
        elif _is_node(value):
            fitting[key] = parse_spec(value)
        elif isinstance(value, dict) and value and all(_is_node(part) for part in value.values()):
            fitting[key] = {name: parse_spec(part) for name, part in value.items()}
        else:
            try:
                fitting[key] = _of_type(value, known[key])
            except ValueError as wrong:
                faults.append(f"'{key}' {wrong}, not {value!r}")
    if missing := [name for name in _required(target) if name not in node]:
        faults.append(f"{target.__name__} needs {', '.join(map(repr, missing))}")
    if faults:
        raise ValueError("; ".join(faults))
    return fitting


def _parameters(target: Any) -> dict[str, Any]:
    """Names and types of what a config may give to a constructor."""
    hints = typing.get_type_hints(target.__init__)
    names = [name for name in inspect.signature(target).parameters if name not in {"args", "kwargs", *_GIVEN_BY_BUILD}]
    return {name: hints.get(name, Any) for name in names}


def _required(target: Any) -> list[str]:
    """Names of what a config must give to a constructor."""
    parameters = inspect.signature(target).parameters
    return [name for name in _parameters(target) if parameters[name].default is inspect.Parameter.empty]


def _of_type(value: Any, expected: Any) -> Any:
    """The value as the type has it: `no` is False where a bool is expected."""
    try:
        return TypeAdapter(expected, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        name = getattr(expected, "__name__", expected)
        raise ValueError(f"must be {name} ({error.errors()[0]['msg'].lower()})") from None
    except (PydanticSchemaGenerationError, NameError, TypeError):
        return value  # a type that pydantic does not know
