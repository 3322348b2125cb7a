"""Parse config nodes with `_target_` into specs, and build objects from them."""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from torch import nn

from segkd.config.targets import resolve_target
from segkd.config.values import name_type, suggest_value
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.models.base import SegmentationModel
from segkd.utils.plugins import describe_error, is_of_plugin

NETWORK_KEYS = ("checkpoint", "init_from", "class_map")
"""Keys of a network that are not arguments of its constructor."""

_GIVEN_BY_BUILD = {"num_classes", "normalization", "split", "complete", "params", "run"}
"""Constructor arguments that follow from other parts, so that no config sets them."""

_GIVEN_UNLESS_SET = {"save_dir"}
"""Constructor arguments of loggers that the run gives where the config does not."""


@dataclass(frozen=True)
class Spec:
    """A class and the arguments that a config gives to its constructor; arguments may be specs themselves."""

    target: Any
    arguments: dict[str, Any]

    @property
    def path(self) -> str:
        """The dotted path of the class."""
        return f"{self.target.__module__}.{self.target.__qualname__}"

    def build(self, **given: Any) -> Any:
        """Return the object, with `given` arguments in addition to, or in place of, the config's.

        Raises:
            UserError: the class refuses a value; or it is of a plugin, and its constructor fails.
        """
        arguments = {key: _build_nested(value) for key, value in self.arguments.items() if key not in given} | given
        is_own = is_of_plugin(self.path)
        if is_own:
            self._check_signature(arguments, given)
        try:
            built = self.target(**arguments)
        except UserError:
            raise
        except Exception as error:
            if is_own:
                raise UserError(f"{self.path} cannot be built: {describe_error(error)}") from None
            if isinstance(error, ValueError):
                raise UserError(f"{self.target.__name__}: {error}") from None
            raise
        if isinstance(built, nn.Module) and "_parameters" not in vars(built):
            raise UserError(f"{self.path} cannot be built: its __init__ does not call super().__init__()")
        return built

    def _check_signature(self, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Raise a UserError if the constructor does not take these arguments, of which segkd gives some."""
        try:
            inspect.signature(self.target).bind(**arguments)
        except TypeError as error:
            names = ", ".join(given)
            called = f"with the keys of the config{names and f' and with {names}'}, as keyword arguments"
            raise UserError(f"{self.path} cannot be built: {error}; its constructor is called {called}") from None


@dataclass(frozen=True)
class NetworkSpec(Spec):
    """A network, where its weights come from, and how its classes map to the dataset's."""

    checkpoint: str | None = None
    init_from: str | None = None
    class_map: dict[str, Any] | None = field(default=None, kw_only=True)


def parse_spec(
    node: Mapping[str, Any], missing: str = "it names no class by _target_", kind: type | None = None
) -> Spec:
    """Return the spec that a config node describes, with values converted to the constructor's annotated types.

    Args:
        node: `_target_`, and arguments by name.
        missing: the error where there is no `_target_`.
        kind: the base class that the class must have; None for any.

    Raises:
        ValueError: the class is not allowed, not of the kind, or does not take these arguments; the message lists every fault.
    """
    _check_level(node)
    if not isinstance(node, Mapping) or node.get("_target_") is None:
        raise ValueError(missing)
    target = resolve_target(node["_target_"], kind)
    is_network = issubclass(target, SegmentationModel)
    own = {key: value for key, value in node.items() if key in NETWORK_KEYS} if is_network else {}
    given = {key: value for key, value in node.items() if key != "_target_" and key not in own}
    arguments = _check_arguments(target, given)
    if not is_network:
        return Spec(target, arguments)
    _check_name(target)
    checkpoint, init_from, class_map = (own.get(key) for key in NETWORK_KEYS)
    return NetworkSpec(
        target, arguments, _to_optional_str(checkpoint), _to_optional_str(init_from), class_map=class_map
    )


def _check_level(node: Any) -> None:
    """Raise a ValueError if `_target_` stands below a name in the file of a part, where it belongs at the top."""
    if isinstance(node, Mapping) and "_target_" not in node:
        for name, part in node.items():
            if _is_node(part):
                raise ValueError(
                    f"_target_ stands below '{name}'; in the file of this part, _target_ and its arguments stand at the top"
                )


def _check_name(network: type) -> None:
    """Raise a ValueError if a network's own name, by which `student.yaml` names it, does not lead to it."""
    if getattr(importlib.import_module(network.__module__), network.__qualname__, None) is not network:
        raise ValueError(
            f"'{network.__module__}.{network.__qualname__}' is not the name of a class in this module, so that no student.yaml "
            "could name it; write the class at the top level of its module"
        )


def parse_optional_spec(node: Mapping[str, Any] | None, kind: type | None = None) -> Spec | None:
    """Return the spec of a config node; None for `_target_: null`, which is how a config says "none".

    Raises:
        ValueError: see `parse_spec`.
    """
    _check_level(node)
    is_none = node is None or (isinstance(node, Mapping) and node.get("_target_") is None)
    return None if is_none else parse_spec(cast("Mapping[str, Any]", node), kind=kind)


def list_accepted_keys(node: Mapping[str, Any]) -> set[str]:
    """Return the keys that a node's class accepts; those that it has, where the class cannot be resolved."""
    try:
        target = resolve_target(node["_target_"])
    except ValueError:
        return set(node)  # `parse_spec` says what is wrong with it
    network_keys = NETWORK_KEYS if issubclass(target, SegmentationModel) else ()
    return {"_target_", *network_keys, *_list_parameters(target)}


def _check_arguments(target: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as their annotations have them; raise one ValueError that lists every fault."""
    parameters = _list_parameters(target)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    arguments, faults = dict(given), []
    for key, value in given.items():
        if key not in parameters and takes_any and key not in _GIVEN_BY_BUILD:
            continue
        if key not in parameters:
            faults.append(f"{target.__name__} takes no '{key}'{_suggest_parameter(key, list(parameters))}")
            continue
        try:
            arguments[key] = _convert(key, value, parameters[key])
        except ValueError as error:
            faults.append(str(error))
    if missing := [name for name in _list_required(target) if name not in given]:
        faults.append(f"{target.__name__} needs {', '.join(map(repr, missing))}")
    if faults:
        raise ValueError("; ".join(faults))
    return arguments


def _suggest_parameter(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    others = f", but {', '.join(known)}" if known else " and no other key"
    return hint + others


def _list_parameters(target: Any) -> dict[str, Any]:
    """Return names and types of what a config may give to a constructor."""
    try:
        hints = typing.get_type_hints(target.__init__)
    except (NameError, TypeError):  # annotations of names that only a type checker imports
        hints = {}
    given = set() if issubclass(target, Loss) else _GIVEN_BY_BUILD
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(target).parameters.items()
    return {name: hints.get(name, Any) for name, p in parameters if p.kind not in variadic and name not in given}


def _list_required(target: Any) -> list[str]:
    """Return names of what a config must give to a constructor."""
    parameters = inspect.signature(target).parameters
    return [
        name
        for name in _list_parameters(target)
        if parameters[name].default is inspect.Parameter.empty and name not in _GIVEN_UNLESS_SET
    ]


def _convert(key: str, value: Any, expected: Any) -> Any:
    """Return a value as its annotation has it: a nested spec, or `no` as False where a bool is expected."""
    if _is_node(value):
        return _parse_nested(key, value, _list_kinds(expected))
    if isinstance(value, dict) and value and all(_is_node(part) for part in value.values()):
        kinds = _list_kinds(_find_element_type(expected))
        return {name: _parse_nested(f"{key}.{name}", part, kinds) for name, part in value.items()}
    try:
        return TypeAdapter(expected, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError:
        raise ValueError(
            f"'{key}' must be {name_type(expected)}, not {value!r}{suggest_value(key, value, expected)}"
        ) from None
    except (PydanticSchemaGenerationError, NameError, TypeError):
        return value  # a type that pydantic does not know


def _parse_nested(key: str, node: Mapping[str, Any], kinds: tuple[type, ...] | None) -> Spec | None:
    """Return the spec of an argument, which must be of one of the kinds; None for any.

    Raises:
        ValueError: see `parse_spec`; or the argument is no object that a config can build.
    """
    if kinds is None or node.get("_target_") is None:
        return parse_optional_spec(node)
    target = resolve_target(node["_target_"])
    if not issubclass(target, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
        raise ValueError(f"'{key}' must be of type {expected}, not {target.__name__}")
    return parse_spec(node)


def _list_kinds(annotation: Any) -> tuple[type, ...] | None:
    """Return the classes that an annotation allows; None for any."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [_list_kinds(part) for part in typing.get_args(annotation)]
        return None if None in kinds else tuple(kind for part in kinds for kind in part or ())
    if typing.get_origin(annotation) is typing.Annotated:
        return _list_kinds(typing.get_args(annotation)[0])
    plain = typing.get_origin(annotation) or annotation
    return (plain,) if inspect.isclass(plain) and plain not in (object, Any) else None


def _find_element_type(annotation: Any) -> Any:
    """Return the type of a mapping's values; Any where it is not known."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        found = [_find_element_type(part) for part in typing.get_args(annotation) if part is not type(None)]
        return found[0] if len(found) == 1 else Any
    arguments = typing.get_args(annotation)
    return arguments[1] if len(arguments) == 2 else Any


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _build_nested(value: Any) -> Any:
    return value.build() if isinstance(value, Spec) else value


def _to_optional_str(value: Any) -> str | None:
    return None if value is None else str(value)
