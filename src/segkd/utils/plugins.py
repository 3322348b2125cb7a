"""Plugins: packages of the user's own, named on the command line or in SEGKD_PLUGINS, whose parts a config may name.

Importing a package runs its code, so nothing but the user may name one: no config, run or checkpoint. The environment
variable holds all names, so that the processes that a command starts have the same plugins.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from segkd.errors import UserError

log = logging.getLogger(__name__)

VARIABLE = "SEGKD_PLUGINS"

_SEGKD = Path(__file__).parents[1]

_FILES_NAME_NONE = (
    f"a file cannot name plugins, because importing one runs its code; name it on the command line, plugins=[my_pkg], "
    f"or in {VARIABLE}"
)


def add_plugins(names: Iterable[str]) -> None:
    """Add packages to the plugins of this process and of those that it starts; nothing is imported.

    Raises:
        UserError: a name is none of a package of the user's own that Python finds.
    """
    plugins = [*list_plugins(), *(name.strip() for name in names if name.strip())]
    for name in plugins:
        _locate(name)
    if plugins:
        os.environ[VARIABLE] = ",".join(dict.fromkeys(plugins))


def load_plugins(names: Iterable[str] = ()) -> None:
    """Import all plugins, these and those named before.

    Raises:
        UserError: see `add_plugins`; or a package cannot be imported.
    """
    add_plugins(names)
    for name in list_plugins():
        try:
            with _kept_process(name):
                importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(f"the plugin '{name}' cannot be imported: {describe_error(error)}") from None


def list_plugins() -> tuple[str, ...]:
    """Return the names of all plugins."""
    return tuple(name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip())


def is_of_plugin(path: str) -> bool:
    """Return whether a dotted path names something in a plugin."""
    return any(path.startswith(f"{name}.") for name in list_plugins())


def list_plugin_configs() -> list[Path]:
    """Return the folders `configs` of the plugins that have one."""
    folders = [folder / "configs" for name in list_plugins() for folder in _locate(name)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def explain_missing_plugin(path: str) -> str:
    """Return the cure for a dotted path that is refused: the plugin to name; empty for a path of no plugin."""
    package = path.partition(".")[0]
    if not _is_package_name(package) or _explain_no_plugin(package) is not None or package == "torch":
        return ""
    return f"if '{package}' is a package that you trust, add plugins=[{package}]"


def explain_own_part() -> str:
    """Return what to add to the sentence for a name that does not exist: how to name a part of one's own."""
    if plugins := list_plugins():
        return f"; the plugins {', '.join(plugins)} have none of that name"
    return "; for one of your own, name its package, plugins=[my_pkg]"


def refuse_plugins_in_file(content: Mapping[Any, Any], file: Path | str) -> None:
    """Check that a file names no plugins.

    Args:
        content: its keys, or the environment variables that it sets.
        file: its name, for the error.

    Raises:
        UserError: it does.
    """
    if "plugins" in content or VARIABLE in content:
        raise UserError(f"{file}: {_FILES_NAME_NONE}")


def explain_plugins_key() -> str:
    """Return what to say of a key `plugins` in a config."""
    return _FILES_NAME_NONE


def describe_error(error: BaseException) -> str:
    """Return the last line of an error's traceback, and the line of code that it comes from: the plugin's, if it has a part in it."""
    last = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename:
        return f"{last} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and not _is_in(frame.filename, [_SEGKD, Path(importlib.__file__)])
    ]
    own = [frame for frame in frames if _is_in(frame.filename, _list_places())]
    return f"{last} ({(own or frames)[-1].filename}, line {(own or frames)[-1].lineno})" if frames else last


@contextmanager
def _kept_process(name: str) -> Iterator[None]:
    """Keep what a command needs as it was while a plugin is imported: its arguments, its folder, and stdout for its result."""
    arguments, folder = [*sys.argv], Path.cwd()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        changed = [
            text
            for text, is_changed in (("sys.argv", sys.argv != arguments), ("the folder", Path.cwd() != folder))
            if is_changed
        ]
        if changed:
            log.warning("the plugin '%s' changes %s when it is imported; that is undone", name, " and ".join(changed))
        sys.argv[:] = arguments
        os.chdir(folder)


def _is_in(file: str, places: Iterable[Path]) -> bool:
    return any(Path(file).is_relative_to(place) for place in places)


def _list_places() -> list[Path]:
    """Return the folders of the plugins, and the files of those that are one; nothing is imported."""
    specs = [importlib.util.find_spec(name.partition(".")[0]) for name in list_plugins()]
    places = [place for spec in specs if spec for place in spec.submodule_search_locations or [spec.origin or ""]]
    return [Path(place) for place in places if place]


def _locate(name: str) -> list[Path]:
    """Return the folders of a package; none for a module of one file.

    Raises:
        UserError: it is no package of the user's own, or Python does not find it.
    """
    given = f"{VARIABLE}={os.environ[VARIABLE]}" if name in list_plugins() else f"plugins=[{name}]"
    if not _is_package_name(name):
        example = f"{VARIABLE}=my_pkg,other" if name in list_plugins() else "plugins=[my_pkg]"
        raise UserError(f"{given}: '{name}' is not the name of a package; give one such as {example}")
    if (reason := _explain_no_plugin(name.partition(".")[0])) is not None:
        raise UserError(f"{given}: {reason}; name a package of your own")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # `segkd COMMAND` lacks it, `python -m segkd.COMMAND` has it
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    except (Exception, SystemExit) as error:  # of the parent of a dotted name, which is imported
        raise UserError(f"the plugin '{name}' cannot be imported: {describe_error(error)}") from None
    if spec is None:
        raise UserError(
            f"{given}: Python finds no package '{name}'; install it (pip install -e DIR), or run in the folder that holds it"
        )
    return [Path(folder) for folder in spec.submodule_search_locations or []]


def _is_package_name(name: str) -> bool:
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None


def _explain_no_plugin(package: str) -> str | None:
    """Return why a package is not to be a plugin; None if it may be one."""
    if package == "segkd":
        return "segkd needs no plugin for its own parts"
    return f"'{package}' belongs to Python" if package in sys.stdlib_module_names else None
