"""Hydra's search path with the `configs/` folders of the plugins, after segkd's own."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from segkd.config.paths import CONFIGS
from segkd.errors import UserError
from segkd.utils.plugins import list_plugin_configs


class PluginConfigs(SearchPathPlugin):
    """Adds the folders to the search path of every config that is composed."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders."""
        for folder in list_plugin_configs():
            search_path.append("segkd-plugin", f"file://{folder}")


def register_plugin_configs() -> None:
    """Let Hydra find the yaml files of the plugins, from now on.

    Raises:
        UserError: a file has the name of another, of segkd or of a plugin, of which Hydra would take one; or it ends with `.yml`.
    """
    found: dict[Path, Path] = {}
    for folder in list_plugin_configs():
        for path in sorted(folder.rglob("*.y*ml")):
            if path.suffix == ".yml":
                raise UserError(f"{path}: Hydra reads files that end with .yaml; rename it")
            if (CONFIGS / (name := path.relative_to(folder))).is_file():
                raise UserError(f"{path}: segkd has a {name} of its own; give the file another name")
            if name in found:
                raise UserError(f"{path}: there is {found[name]} too; give one of the files another name")
            found[name] = path
    if PluginConfigs not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(PluginConfigs)
