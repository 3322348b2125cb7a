"""Parse config nodes with `_target_` into specs, and build objects from them."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from segkd.config.values import name_type, suggest_value
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.utils.plugins import describe_error, explain_missing_plugin, is_of_plugin

ALLOWED_TARGETS = ("segkd.", "torch.optim.")
"""A config may come from a stranger, so `_target_` must begin with one of these, or name a class of a plugin."""

LIGHTNING_TARGETS = ("pytorch_lightning.callbacks.", "pytorch_lightning.loggers.")
"""What `_target_` may begin with, besides, where a config has a callback or a logger."""

MOVED = {
    "segkd.adversary.": "segkd.distillation.adversary.",
    "segkd.schedules.": "segkd.distillation.schedules.",
}
"""Module in the `_target_` paths of earlier versions → the module now."""

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
            UserError: the class refuses a value.
        """
        own = {key: _build_nested(value) for key, value in self.arguments.items() if key not in given}
        try:
            return self.target(**own, **given)
        except ValueError as error:
            raise UserError(f"{self.target.__name__}: {error}") from None


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
    if not isinstance(node, Mapping) or node.get("_target_") is None:
        raise ValueError(missing)
    target = resolve_target(node["_target_"], kind)
    is_network = issubclass(target, SegmentationModel)
    own = {key: value for key, value in node.items() if key in NETWORK_KEYS} if is_network else {}
    given = {key: value for key, value in node.items() if key != "_target_" and key not in own}
    arguments = _check_arguments(target, given)
    if not is_network:
        return Spec(target, arguments)
    checkpoint, init_from, class_map = (own.get(key) for key in NETWORK_KEYS)
    return NetworkSpec(
        target, arguments, _to_optional_str(checkpoint), _to_optional_str(init_from), class_map=class_map
    )


def parse_optional_spec(node: Mapping[str, Any] | None) -> Spec | None:
    """Return the spec of a config node; None for `_target_: null`, which is how a config says "none".

    Raises:
        ValueError: see `parse_spec`.
    """
    is_none = node is None or (isinstance(node, Mapping) and node.get("_target_") is None)
    return None if is_none else parse_spec(cast("Mapping[str, Any]", node))


def resolve_target(path: Any, kind: type | None = None) -> Any:
    """Return the class of a dotted path.

    Args:
        path: of segkd, of torch.optim or of a plugin; of Lightning too, where `kind` is one of its classes.
        kind: the base class that it must have; None for any.

    Raises:
        ValueError: it is not allowed, cannot be imported, or is no such class.
    """
    path = update_target(str(path))
    module, _, name = path.rpartition(".")
    is_lightning = kind is not None and kind.__module__.startswith("pytorch_lightning.")
    allowed = (*ALLOWED_TARGETS, *LIGHTNING_TARGETS) if is_lightning else ALLOWED_TARGETS
    if not (path.startswith(allowed) or is_of_plugin(path)) or any(part.startswith("_") for part in path.split(".")):
        cure = explain_missing_plugin(path)
        listed = ", ".join(f"{prefix}*" for prefix in allowed)
        raise ValueError(f"'{path}' is not allowed as _target_; only {listed} and plugins are{cure and f'; {cure}'}")
    target = _import_target(path, module, name)
    is_trusted = inspect.isclass(target) and (
        target.__module__.startswith(allowed) or is_of_plugin(f"{target.__module__}.")
    )
    if not is_trusted or inspect.isabstract(target):
        of = f"the plugin '{path.partition('.')[0]}'" if is_of_plugin(path) else "segkd or torch.optim"
        raise ValueError(f"'{path}' is not a class of {of} that can be built{_list_abstract_methods(target)}")
    if kind is not None and not issubclass(target, kind):
        raise ValueError(f"'{path}' is no {kind.__name__}; make it a subclass of {kind.__module__}.{kind.__name__}")
    return target


def _import_target(path: str, module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):  # a package that the module imports
            raise ValueError(f"'{path}' cannot be imported: {describe_error(error)}") from None
        raise ValueError(f"there is no '{path}'") from None
    except AttributeError:
        raise ValueError(f"there is no '{path}'") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"'{path}' cannot be imported: {describe_error(error)}") from None


def _list_abstract_methods(target: Any) -> str:
    """Return which methods a class lacks; empty for one that lacks none."""
    names = sorted(getattr(target, "__abstractmethods__", ())) if inspect.isabstract(target) else []
    return f"; it does not define {', '.join(names)}" if names else ""


def update_target(path: str) -> str:
    """Return today's path of a class that earlier versions of segkd had in another module."""
    return next((new + path.removeprefix(old) for old, new in MOVED.items() if path.startswith(old)), path)


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
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(target).parameters.items()
    return {
        name: hints.get(name, Any) for name, p in parameters if p.kind not in variadic and name not in _GIVEN_BY_BUILD
    }


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
        return parse_optional_spec(value)
    if isinstance(value, dict) and value and all(_is_node(part) for part in value.values()):
        return {name: parse_optional_spec(part) for name, part in value.items()}
    try:
        return TypeAdapter(expected, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError:
        raise ValueError(
            f"'{key}' must be {name_type(expected)}, not {value!r}{suggest_value(key, value, expected)}"
        ) from None
    except (PydanticSchemaGenerationError, NameError, TypeError):
        return value  # a type that pydantic does not know


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _build_nested(value: Any) -> Any:
    return value.build() if isinstance(value, Spec) else value


def _to_optional_str(value: Any) -> str | None:
    return None if value is None else str(value)
