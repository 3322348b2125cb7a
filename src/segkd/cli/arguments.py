"""Prepare a command line for Hydra: options before keys, and `~` for the home folder."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser  # the public API does not list Hydra's options

from segkd.config.home import expand_home
from segkd.errors import UserError
from segkd.utils.plugins import add_plugins, list_plugin_configs

_QUOTED = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
_ELEMENT = re.compile(
    rf"(?P<before>^|[\[({{,:]\s*)(?P<path>(?:file://)?~[^,\[\]{{}}()\"']*)|(?P<quoted>{_QUOTED})", re.S
)
_PLAIN = re.compile(r"[\w/\\\-+.$%*@?|]*", re.ASCII)
"""Text that Hydra reads without quotes."""
_PLUGINS = re.compile(r"\+{0,2}plugins=|~?plugins$|~plugins=|\+{0,2}plugins\.")
_PACKAGES = re.compile(r"\+{0,2}plugins=\s*(?:\[(?P<listed>[^\[\]]*)\]|(?P<single>[^,\[\]]*))\s*")


def arrange_arguments(refuse: Callable[[str], NoReturn]) -> None:
    """Rewrite `sys.argv` as Hydra reads it: options first, wherever they were typed, home folders in full, and no plugins.

    Args:
        refuse: raises the error for an option that is not one of Hydra's, or has a wrong value; it gets the reason.

    Raises:
        UserError: `~user` names no user, `hydra.searchpath` no folder, or `plugins` no package.
    """
    parser = get_args_parser()
    parser.error = refuse  # type: ignore[assignment,method-assign]  # it would print Hydra's usage and exit
    options, keys = _separate_options(parser, sys.argv[1:])
    # Not a key of the config, which files could set.
    add_plugins(name for key in keys for name in read_plugins(key))
    sys.argv[1:] = [*options, *(expand_home_in_override(key) for key in keys if not _PLUGINS.match(key))]
    if foreign := parser.parse_known_args()[1]:
        refuse(f"there is no option '{foreign[0].partition('=')[0]}'")
    for folder in list_search_path():
        if not folder.is_dir():
            raise UserError(f"hydra.searchpath: there is no folder {folder}")


def list_own_folders() -> list[Path]:
    """Return the folders of yaml files that the command line adds to those of segkd, plugins included."""
    options = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    config_dirs = [a.partition("=")[2] for a in sys.argv[1:] if re.match(r"(--config-dir|-cd)=", a)]
    config_dirs += [options[name] for name in ("--config-dir", "-cd") if name in options]
    return [*map(Path, config_dirs), *list_search_path(), *list_plugin_configs()]


def list_search_path() -> list[Path]:
    """Return the folders in `hydra.searchpath=[…]`, but no packages."""
    values = [a.partition("=")[2] for a in sys.argv[1:] if re.match(r"\+{0,2}hydra\.searchpath=\[", a)]
    try:
        entries = [str(entry) for value in values for entry in yaml.safe_load(value)]
    except yaml.YAMLError:
        return []  # Hydra says that it cannot read it
    return [Path(entry.removeprefix("file://")) for entry in entries if not entry.startswith("pkg://")]


def read_plugins(override: str) -> list[str]:
    """Return the packages that `plugins=[A,B]` names; none for another override.

    Raises:
        UserError: it names plugins in another way, as a sweep would.
    """
    if not _PLUGINS.match(override):
        return []
    match = _PACKAGES.fullmatch(override)
    if match is None:
        raise UserError(f"{override}: plugins are named in one list, which no sweep changes; write plugins=[A,B]")
    names = [name.strip(" \"'") for name in (match["listed"] or match["single"] or "").split(",")]
    return [] if names == ["null"] else names


def expand_home_in_override(override: str) -> str:
    """Return `KEY=VALUE` with `~` expanded at the beginning of the value and of each element of a list or mapping.

    A `~` before the key, by which Hydra deletes it, stays.
    """
    key, equals, value = override.partition("=")
    return key + equals + _ELEMENT.sub(_expand_element, value)


def _expand_element(match: re.Match[str]) -> str:
    if quoted := match["quoted"]:
        mark, path = quoted[0], quoted[1:-1]
        is_path = path == "~" or re.match(r"~[\w.-]*[/\\]", path)
        return f"{mark}{_escape(expand_home(path), mark)}{mark}" if is_path else quoted
    expanded = expand_home(match["path"])
    home = expanded.removesuffix(match["path"].partition("~")[2]).removeprefix("file://")
    return match["before"] + (expanded if _PLAIN.fullmatch(home) else f"'{_escape(expanded, chr(39))}'")


def _escape(text: str, mark: str) -> str:
    return text.replace(mark, f"\\{mark}")


def _separate_options(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options with their values, and everything else."""
    options: list[str] = []
    keys: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if argument == "--":
            return options, keys + pending
        if not argument.startswith("-"):
            keys.append(argument)
            continue
        name, equals, value = argument.partition("=")
        action = _find_option(parser, name)
        if action is not None and not equals and action.nargs in (None, "?"):
            if pending and (action.choices is None or pending[0] in action.choices):
                equals, value = "=", pending.pop(0)
            elif action.nargs == "?":
                equals, value = "=", str(action.const)  # or it would take the first key
        options.append(f"{name}{equals}{expand_home(value)}")
    return options, keys


def _find_option(parser: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    """Return the option of this name or, as argparse does, the only one whose name begins so."""
    known = {option: action for action in parser._actions for option in action.option_strings}
    similar = {id(action): action for option, action in known.items() if option.startswith(name)}
    return known.get(name) or (next(iter(similar.values())) if len(similar) == 1 and name.startswith("--") else None)
