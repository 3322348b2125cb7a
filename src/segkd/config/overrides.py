"""Reconcile an experiment with the command line: drop settings of replaced parts, and keep presets unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from segkd.config.instantiate import list_accepted_keys
from segkd.config.keys import flatten
from segkd.config.paths import CONFIGS
from segkd.errors import UserError

_NAMED_PARTS = {"loss": "loss", "callbacks": "callback", "logger": "logger"}
"""Config group, of which several parts are chosen → what one is called."""


def apply_overrides(cfg: DictConfig, hydra: DictConfig | None = None) -> None:
    """Drop an experiment's settings of parts that the overrides replace or leave out.

    Args:
        cfg: the composed config; changed in place.
        hydra: Hydra's own node of the config, which holds the overrides; None for that of the command line.

    Raises:
        UserError: there is no command line; or the overrides set a key of a loss that is not selected, change a value of a
            preset, or give a network's name where its keys belong.
    """
    if hydra is None and not HydraConfig.initialized():
        raise UserError(
            "a command's function needs its command line; run it as a command, as in python -m segkd.train KEY=VALUE"
        )
    node = HydraConfig.get() if hydra is None else hydra
    overrides = list(node.overrides.task)
    _check_parts(cfg)
    _check_preset(cfg, node.runtime.choices.get("preset"), overrides)
    _drop_unselected_losses(cfg, overrides)
    _drop_unused_checkpoint(cfg, overrides)
    _drop_arguments_of_replaced_networks(cfg, overrides)


def check_named_parts(cfg: DictConfig) -> None:
    """Check the files of losses, callbacks and loggers, which hold a name above the part.

    Raises:
        UserError: one has `_target_` at the top.
    """
    for group, part in _NAMED_PARTS.items():
        if isinstance(cfg.get(group), DictConfig) and "_target_" in cfg[group]:
            raise UserError(
                f"{group}._target_={cfg[group]['_target_']} is no {part}; a {part}'s file has one key, its name, with _target_ "
                "below it"
            )


def _check_parts(cfg: DictConfig) -> None:
    if not isinstance(cfg.loss, DictConfig):
        raise UserError(f"loss={cfg.loss} is not a set of losses; choose them with loss=[NAME,…]")
    check_named_parts(cfg)
    for name, node in cfg.loss.items():
        if not isinstance(node, DictConfig):
            raise UserError(f"loss.{name!s}={node} is not a loss; choose losses with loss=[NAME,…]")
    for role in ("student", "teacher"):
        if not isinstance(cfg[role], DictConfig):
            raise UserError(f"{role}={cfg[role]} is not a network; choose one with model@{role}=NAME")


def _check_preset(cfg: DictConfig, preset: str | None, overrides: Sequence[str]) -> None:
    """Raise a UserError if the overrides change a value of a preset; its losses may be left out."""
    path = CONFIGS / "preset" / f"{preset}.yaml"
    overridden = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key, value in flatten(yaml.safe_load(path.read_bytes()) or {}) if path.is_file() else ():
        if key in overridden and OmegaConf.select(cfg, key) != value:
            raise UserError(
                f"preset={preset} sets {key}={value}, but {OmegaConf.select(cfg, key)} is given; leave one of them out"
            )


def _drop_unselected_losses(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Drop an experiment's settings of losses that the command line leaves out."""
    unselected = [str(name) for name, node in cfg.loss.items() if "_target_" not in node]
    for name in unselected:
        if any(override.lstrip("+").startswith(f"loss.{name}.") for override in overrides):
            raise UserError(f"loss '{name}' is not selected; add it to loss=[...] or leave its override out")
        with open_dict(cfg):
            del cfg.loss[name]


def _drop_unused_checkpoint(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Drop the checkpoint of an experiment's teacher where the command line selects no teacher."""
    if cfg.teacher.get("_target_") is None and not any(override.startswith("teacher.") for override in overrides):
        cfg.teacher.checkpoint = None


def _drop_arguments_of_replaced_networks(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Drop an experiment's constructor arguments that the network chosen on the command line does not have."""
    for role in ("student", "teacher"):
        node = cfg[role]
        if node.get("_target_") is None or not any(override.startswith(f"model@{role}=") for override in overrides):
            continue
        for key in [str(key) for key in node if key not in list_accepted_keys(node)]:
            if not any(override.lstrip("+").startswith(f"{role}.{key}=") for override in overrides):
                with open_dict(cfg):
                    del node[key]
