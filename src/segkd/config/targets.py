"""Find the class that `_target_` names, if a config may name it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

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
