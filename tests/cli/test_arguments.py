"""The command line before Hydra reads it: options anywhere, and `~` in every path."""

from __future__ import annotations

import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

import pytest
from omegaconf import DictConfig, OmegaConf

from segkd.cli import launch
from segkd.cli.arguments import arrange_arguments, expand_home_in_override, list_own_folders
from segkd.cli.commands import COMMANDS
from segkd.cli.reference import list_settings
from segkd.config.home import expand_home, expand_home_in_config
from segkd.config.schema import Settings
from segkd.errors import UserError
from tests.helpers.commands import Command


def refuse(message: str) -> NoReturn:
    raise UserError(message)


def arrange(monkeypatch: pytest.MonkeyPatch, typed: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["segkd.train", *typed.split()])
    arrange_arguments(refuse)
    return sys.argv[1:]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("seed=1 -m sweep=seeds --config-dir mine", ["-m", "--config-dir=mine", "seed=1", "sweep=seeds"]),
        ("-m sweep=optuna -cd mine experiment=tiny", ["-m", "-cd=mine", "sweep=optuna", "experiment=tiny"]),
        ("seed=1 --config-dir=mine ~wandb.mode", ["--config-dir=mine", "seed=1", "~wandb.mode"]),
        ("seed=1 --cfg job --resolve name=a", ["--cfg=job", "--resolve", "seed=1", "name=a"]),
        ("--info seed=1", ["--info=all", "seed=1"]),
        ("seed=1 --info defaults name=a", ["--info=defaults", "seed=1", "name=a"]),
    ],
)
def test_options_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch, typed: str, expected: list[str]) -> None:
    assert arrange(monkeypatch, typed) == expected
    assert arrange(monkeypatch, " ".join(expected)) == expected  # as another process of the same training gets them


def test_only_an_option_is_refused_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no option '--epochs'"):
        arrange(monkeypatch, "experiment=tiny --epochs 3 seed=1")


def test_own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arrange(monkeypatch, f"seed=1 --config-dir mine hydra.searchpath=[file://{tmp_path},pkg://segkd]")
    assert list_own_folders() == [Path("mine"), tmp_path]


def test_home_in_arguments(home: Path) -> None:
    cases = {
        "dataset.root=~/data": f"dataset.root={home}/data",
        "output_dir=~": f"output_dir={home}",
        "runs=[~/a, ~/b]": f"runs=[{home}/a, {home}/b]",
        "dataset.root=~/a,~/b": f"dataset.root={home}/a,{home}/b",
        "members={a: {checkpoint: ~/a.pth}}": f"members={{a: {{checkpoint: {home}/a.pth}}}}",
        'hydra.sweep.dir="~/my runs"': f'hydra.sweep.dir="{home}/my runs"',
        "hydra.searchpath=[file://~/x]": f"hydra.searchpath=[file://{home}/x]",
        "~trainer.ema": "~trainer.ema",
        "name=a~b": "name=a~b",
        'overrides=["~wandb.mode"]': 'overrides=["~wandb.mode"]',
    }
    for typed, expected in cases.items():
        assert expand_home_in_override(typed) == expected


def test_home_that_hydra_cannot_read_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/Jörg (it's)")
    assert expand_home_in_override("dataset.root=~/data") == "dataset.root='/home/Jörg (it\\'s)/data'"


def test_home_in_a_config(home: Path) -> None:
    cfg = OmegaConf.create({"a": "~/x", "b": ["~", "x~"], "c": {"d": "${a}/y", "e": "???"}, "tag": "~x", "n": None})
    expand_home_in_config(cfg)
    assert OmegaConf.to_container(cfg) == {
        "a": f"{home}/x",
        "b": [str(home), "x~"],
        "c": {"d": "${a}/y", "e": "???"},
        "tag": "~x",
        "n": None,
    }
    assert cfg.c.d == f"{home}/x/y"


def test_unknown_user_is_refused() -> None:
    with pytest.raises(UserError, match="there is no user 'no_such_user'"):
        expand_home("~no_such_user/x")


def holds_path(annotation: Any) -> bool:
    if get_origin(annotation) in (Annotated, Union, UnionType, list):
        return any(holds_path(argument) for argument in get_args(annotation))
    return annotation is Path


def list_path_keys(settings: type[Settings], prefix: str = "") -> list[str]:
    keys = []
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            keys += list_path_keys(field.annotation, f"{prefix}{name}.")
        elif holds_path(field.annotation):
            keys.append(f"{prefix}{name}")
    return keys


PATH_KEYS = [
    (command, mode, keys)
    for command in COMMANDS
    for mode, settings in list_settings(command).items()
    if (keys := list_path_keys(settings))
]


def test_path_keys_are_found() -> None:
    assert {"output_dir", "data.unlabeled", "resume"} <= set(
        next(keys for name, _, keys in PATH_KEYS if name == "train")
    )


@pytest.mark.parametrize(("name", "mode", "keys"), PATH_KEYS)
def test_home_in_every_path_of_a_command(
    command: Command,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mode: str,
    keys: list[str],
) -> None:
    seen: list[DictConfig] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "load_command", lambda name: seen.append)
    for form in ("{}=~/x", '{}="~/x"'):
        ended = command(name, *([f"mode={mode}"] if mode else []), *(form.format(key) for key in keys))
        assert ended.code == 0, ended.err
        assert {OmegaConf.select(seen[-1], key) for key in keys} == {f"{home}/x"}
        assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_home_in_a_yaml_file(command: Command, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/tiny.yaml").write_text("# @package _global_\noutput_dir: ~/run\n")
    monkeypatch.chdir(tmp_path)
    seen: list[DictConfig] = []
    monkeypatch.setattr(launch, "load_command", lambda name: seen.append)
    for arguments in (("experiment=tiny", "--config-dir", "mine"), ("-m", "experiment=tiny", "--config-dir=mine")):
        assert command("train", *arguments).code == 0
        assert seen[-1].output_dir == f"{home}/run"
        assert (home / "run").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "mine"]
