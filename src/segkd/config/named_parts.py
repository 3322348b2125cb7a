"""Parts by name: the yaml files of segkd and of the plugins."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import OmegaConf

from segkd.config.paths import CONFIGS, list_options
from segkd.config.suggestions import explain_unknown_name, suggest
from segkd.errors import UserError
from segkd.utils.plugins import explain_own_part, list_plugin_configs, load_plugins


def list_parts(group: str) -> list[str]:
    """Return the names of a group of parts, such as `model`, those of the plugins included.

    Raises:
        UserError: a plugin cannot be imported.
    """
    load_plugins()
    return sorted(
        {name for folder in (CONFIGS, *list_plugin_configs()) for name in list_options(group, folder)} - {"none"}
    )


def read_part(group: str, name: str) -> dict[str, Any]:
    """Return the content of a part's yaml file.

    Raises:
        UserError: there is no such part; names the nearest, or how to name a package of the user's own.
    """
    if name not in (known := list_parts(group)):
        raise UserError(explain_unknown_name(group, name, known) + ("" if suggest(name, known) else explain_own_part()))
    paths = (folder / group / f"{name}.yaml" for folder in (CONFIGS, *list_plugin_configs()))
    content = OmegaConf.load(next(path for path in paths if path.is_file()))
    return cast("dict[str, Any]", OmegaConf.to_container(content, resolve=True))
