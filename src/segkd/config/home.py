"""The home folder in paths: `~` and `~user`, which a shell leaves alone inside `KEY=VALUE` and a yaml file."""

from __future__ import annotations

import os
import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from segkd.errors import UserError


def expand_home(path: str) -> str:
    """Return a path, or a `file://` address, with `~` or `~user` at its beginning replaced by that home folder.

    Raises:
        UserError: there is no such user.
    """
    match = re.match(r"(?:file://)?(~([\w.-]*))(?=$|[/\\])", path)
    if match is None:
        return path
    home = os.path.expanduser(match[1])  # noqa: PTH111  Path.expanduser would also normalize the rest
    if home == match[1]:
        raise UserError(f"'{path}': there is no user '{match[2]}'; a folder of that name is './{path}'")
    return path[: match.start(1)] + home + path[match.end(1) :]


def expand_home_in_config(node: DictConfig | ListConfig) -> None:
    """Expand `~` in every path of a composed config, in place: a value that is `~` or begins with `~/` or `~user/`.

    Raises:
        UserError: there is no such user.
    """
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        value: Any = node[key]
        if isinstance(value, DictConfig | ListConfig):
            expand_home_in_config(value)
        elif isinstance(value, str) and (value == "~" or re.match(r"~[\w.-]*[/\\]", value)):
            node[key] = expand_home(value)
