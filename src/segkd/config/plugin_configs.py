"""Hydra's search path with the `configs/` folders of the plugins, after segkd's own."""

from __future__ import annotations

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
        UserError: a plugin has a yaml file of the same name as one of segkd, which Hydra would take instead.
    """
    for folder in list_plugin_configs():
        for path in sorted(folder.rglob("*.yaml")):
            if (CONFIGS / (name := path.relative_to(folder))).is_file():
                raise UserError(f"{path}: segkd has a {name} of its own; give the file another name")
    if PluginConfigs not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(PluginConfigs)
