"""What the command line makes of an experiment: which of its parts are left out, and what may not be changed."""

from __future__ import annotations

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from segkd.config.instantiate import accepted_keys
from segkd.config.keys import flatten
from segkd.config.paths import CONFIGS
from segkd.errors import UserError


def apply_overrides(cfg: DictConfig) -> None:
    """Take out what an experiment says of parts that the command line leaves out, and keep a preset as it is.

    Raises:
        UserError: the command line speaks of a loss that it does not select, changes what a preset sets, or has a
            network's name where its keys belong.
    """
    _check_networks(cfg)
    _check_preset(cfg)
    _drop_unselected_losses(cfg)
    _drop_unused_checkpoint(cfg)
    _drop_arguments_of_replaced_networks(cfg)


def _check_networks(cfg: DictConfig) -> None:
    for role in ("student", "teacher"):
        if not isinstance(cfg[role], DictConfig):
            raise UserError(f"{role}={cfg[role]} is no network; choose one with model@{role}=NAME")


def _check_preset(cfg: DictConfig) -> None:
    """A published form of the losses is that form: some of its losses may be left out, none of its values changed."""
    preset = HydraConfig.get().runtime.choices.get("preset")
    path = CONFIGS / "preset" / f"{preset}.yaml"
    asked = {override.lstrip("+").partition("=")[0] for override in HydraConfig.get().overrides.task}
    for key, value in flatten(yaml.safe_load(path.read_text()) or {}) if path.is_file() else ():
        if key in asked and OmegaConf.select(cfg, key) != value:
            raise UserError(
                f"preset={preset} has {key}={value}, and the command line {OmegaConf.select(cfg, key)}; leave one of them out"
            )


def _drop_unselected_losses(cfg: DictConfig) -> None:
    """An experiment may set a weight of a loss that the command line then leaves out; the command line may not.

    Raises:
        UserError: an override on the command line speaks of a loss that is not selected.
    """
    unselected = [str(name) for name, node in cfg.loss.items() if "_target_" not in node]
    asked = HydraConfig.get().overrides.task
    for name in unselected:
        if any(override.lstrip("+").startswith(f"loss.{name}.") for override in asked):
            raise UserError(f"loss '{name}' is not selected; add it to loss=[...] or leave its override out")
        with open_dict(cfg):
            del cfg.loss[name]


def _drop_unused_checkpoint(cfg: DictConfig) -> None:
    """Without a teacher, the checkpoint that an experiment has for one means nothing."""
    if cfg.teacher.get("_target_") is None and not any(
        o.startswith("teacher.") for o in HydraConfig.get().overrides.task
    ):
        cfg.teacher.checkpoint = None


def _drop_arguments_of_replaced_networks(cfg: DictConfig) -> None:
    """An experiment may say how its network is built; of a network that the command line puts in its place that may mean nothing."""
    asked = HydraConfig.get().overrides.task
    for role in ("student", "teacher"):
        node = cfg[role]
        if node.get("_target_") is None or not any(override.startswith(f"model@{role}=") for override in asked):
            continue
        for key in [str(key) for key in node if key not in accepted_keys(node)]:
            if not any(override.lstrip("+").startswith(f"{role}.{key}=") for override in asked):
                with open_dict(cfg):
                    del node[key]
