"""The reference of keys: generated, complete, and the configs agree with the constructors' defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from segkd.cli.commands import COMMANDS
from segkd.cli.reference import MAX_WIDTH, describe_command, list_settings, render_files
from segkd.cli.reference_keys import EXTRA_KEYS, PAGES
from segkd.config.instantiate import NETWORK_KEYS
from segkd.config.keys import flatten
from segkd.config.paths import CONFIGS
from segkd.config.reference import read_argument_docs
from segkd.config.schema import Settings
from segkd.config.targets import resolve_target
from segkd.config.values import format_values
from segkd.losses.pixelwise import Pixelwise

ROOT = CONFIGS.parent

DIFFERENT_DEFAULTS = {
    "model/pspnet_*.yaml": "variants of PSPNet: what tells them apart is what differs",
    "model/segformer_b0.yaml": "one network of the adapter",
    "optimizer/*.yaml": "torch's defaults are no recipe",
}
"""Configs whose values may differ from the constructor's defaults → why."""

PART_CONFIGS = sorted(
    path.relative_to(CONFIGS)
    for group in ("adversary", "dataset", "loss", "model", "optimizer", "schedule")
    for path in (CONFIGS / group).rglob("*.yaml")
)


@pytest.fixture(scope="module")
def rendered() -> dict[Path, str]:
    return render_files()


def list_documented_keys(command: str) -> set[str]:
    return {doc.key for table in describe_command(command) for doc in table.keys}


def test_committed_files_are_what_is_generated(rendered: dict[Path, str]) -> None:
    outdated = [str(path) for path, text in rendered.items() if (ROOT / path).read_text() != text]
    assert not outdated, f"{outdated} are outdated; run `python -m segkd.cli.reference`"


def test_help_is_narrow(rendered: dict[Path, str]) -> None:
    texts = [yaml.safe_load(text)["template"] for path, text in rendered.items() if path.suffix == ".yaml"]
    assert len(texts) == len(COMMANDS)
    assert [line for text in texts for line in text.splitlines() if len(line) > MAX_WIDTH + 2] == []


def list_nested_settings(settings: type[Settings]) -> Iterator[type[Settings]]:
    yield settings
    for field in settings.model_fields.values():
        for annotation in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if inspect.isclass(annotation) and issubclass(annotation, Settings):
                yield from list_nested_settings(annotation)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_a_description_and_no_python_default(command: str) -> None:
    """The yaml is the home of defaults; a group that chooses nothing leaves its key out."""
    for settings in list_settings(command).values():
        for nested in list_nested_settings(settings):
            for name, field in nested.model_fields.items():
                assert field.description, f"{nested.__name__}.{name} needs Field(description=…)"
                is_from_yaml = field.is_required() or name == "model" or nested.__name__ == "MethodSettings"
                assert is_from_yaml, f"{nested.__name__}.{name} has its default in configs/{command}.yaml"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_the_config_is_documented(command: str) -> None:
    config = yaml.safe_load((CONFIGS / f"{command}.yaml").read_text())
    keys = {key for key, _ in flatten({key: node for key, node in config.items() if key not in ("defaults", "hydra")})}
    assert keys - list_documented_keys(command) == set()


def test_keys_with_pages_and_extra_keys_exist() -> None:
    documented = {command: list_documented_keys(command) for command in COMMANDS}
    assert PAGES.keys() <= set().union(*documented.values())
    for extra in EXTRA_KEYS:
        for command in extra.commands:
            assert {key.key for key in extra.keys} <= documented[command], f"nothing is after {extra.after!r}"


def list_nodes(node: object) -> Iterator[dict[str, Any]]:
    """Yield every part of a config that names a class."""
    if isinstance(node, dict):
        if node.get("_target_"):
            yield node
        for value in node.values():
            yield from list_nodes(value)


@pytest.mark.parametrize("path", PART_CONFIGS, ids=str)
def test_config_of_a_part_restates_constructor_defaults_truly(path: Path) -> None:
    """Hydra overrides only keys that exist, so a config lists them; the default's home is the constructor."""
    if any(path.match(pattern) for pattern in DIFFERENT_DEFAULTS):
        return
    for node in list_nodes(yaml.safe_load((CONFIGS / path).read_text())):
        parameters = inspect.signature(resolve_target(node["_target_"])).parameters
        for key, value in node.items():
            if key in ("_target_", "defaults", *NETWORK_KEYS) or isinstance(value, dict):
                continue
            default = parameters[key].default
            if default is not inspect.Parameter.empty:
                assert value == (list(default) if isinstance(default, tuple) else default), key
            else:
                assert value is None, f"{key} has no default in {node['_target_']}; a config asks for it by null"


def test_values_follow_from_types() -> None:
    assert format_values(list[int] | None) == "[N,…]|null"
    assert format_values(tuple[int, int]) == "[H,W]"
    assert format_values(tuple[float, float]) == "[MIN,MAX]"
    assert format_values(bool) == "true|false"


def test_argument_docs_are_read_from_docstrings() -> None:
    docs = read_argument_docs(Pixelwise)
    assert docs.keys() == inspect.signature(Pixelwise).parameters.keys()
    assert docs["mask_void"] == "count labeled pixels only."
