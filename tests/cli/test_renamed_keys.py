"""Keys and options of earlier versions and of other frameworks: the sentence names ours."""

from __future__ import annotations

import pytest

from segkd.cli.commands import COMMANDS
from segkd.cli.messages import explain_unknown_key, explain_unknown_option
from segkd.cli.reference import compose_defaults
from segkd.cli.renamed_keys import EXPLAINED, RENAMED, RENAMED_OPTIONS, USUAL_NAMES
from segkd.config.keys import flatten
from segkd.config.paths import list_options

ALL_PARTS = (
    f"loss=[{','.join(list_options('loss'))}]",
    "adversary=holistic",
    "model@student=adapter",
    "model@teacher=adapter",
)


@pytest.fixture(scope="module")
def keys() -> dict[str, list[str]]:
    """The keys of each command; those of `train` with all losses and parts."""
    parts = {"train": ALL_PARTS}
    return {name: [key for key, _ in flatten(compose_defaults(name, *parts.get(name, ()))[0])] for name in COMMANDS}


def list_commands_with(key: str, keys: dict[str, list[str]]) -> list[str]:
    return [name for name in keys if any(known == key or known.startswith(f"{key}.") for known in keys[name])]


@pytest.mark.parametrize("old", [key for key in RENAMED if key != "teacher.backbone_checkpoint"])  # a key of files only
def test_key_of_an_earlier_version_is_answered_with_todays(old: str, keys: dict[str, list[str]]) -> None:
    new = RENAMED[old]
    commands = list_commands_with(new.replace("/", "."), keys)
    assert commands
    for command in commands:
        assert old not in keys[command]
        assert explain_unknown_key(old, keys[command]) == f"there is no key '{old}'; it is now '{new}'"


@pytest.mark.parametrize("loss", [name for name in list_options("loss") if name not in ("cross_entropy", "lovasz")])
def test_tap_is_answered_with_feature(loss: str, keys: dict[str, list[str]]) -> None:
    assert f"'loss.{loss}.feature'" in explain_unknown_key(f"loss.{loss}.tap", keys["train"])


@pytest.mark.parametrize("usual", USUAL_NAMES)
@pytest.mark.parametrize("prefix", ["", "trainer."])
def test_usual_name_is_answered_with_ours(usual: str, prefix: str, keys: dict[str, list[str]]) -> None:
    sentence = explain_unknown_key(prefix + usual, keys["train"])
    assert sentence == f"there is no key '{prefix}{usual}'; use '{USUAL_NAMES[usual]}'"


@pytest.mark.parametrize("nearly", EXPLAINED)
def test_key_that_is_nearly_right_is_explained(nearly: str, keys: dict[str, list[str]]) -> None:
    assert EXPLAINED[nearly] in explain_unknown_key(nearly, keys["train"])


def test_cure_is_one_that_the_command_has(keys: dict[str, list[str]]) -> None:
    assert "model@student" not in explain_unknown_key("model", keys["serve"])


@pytest.mark.parametrize(("group", "old"), RENAMED_OPTIONS)
def test_option_of_an_earlier_version_is_answered_with_todays(group: str, old: str) -> None:
    new = RENAMED_OPTIONS[group, old]
    assert new in list_options(group)
    assert old not in list_options(group)
    assert explain_unknown_option(group, old) == f"there is no {group} called '{old}'; it is now '{new}'"


def test_name_that_another_command_uses_differently_is_not_answered(keys: dict[str, list[str]]) -> None:
    assert "it is now" not in explain_unknown_key("frames", keys["train"])
