"""Compose the config of a training from Python as its command does, and build from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.initialize import initialize_config_dir
from hydra.version import VersionBase
from omegaconf import DictConfig, open_dict

from segkd.builders.datamodule import build_datamodule
from segkd.builders.datasets import open_dataset
from segkd.builders.distiller import assemble_distiller
from segkd.cli.arguments import arrange_arguments
from segkd.cli.launch import register_resolvers
from segkd.cli.messages import explain
from segkd.cli.own_files import check_own_files
from segkd.config.home import expand_home_in_config
from segkd.config.overrides import apply_overrides
from segkd.config.paths import CONFIGS
from segkd.config.plugin_configs import register_plugin_configs
from segkd.config.schema import load_settings
from segkd.config.training import TrainSettings
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.facts import OwnData
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.utils.plugins import load_plugins

D = TypeVar("D", bound=Distiller)

OWN_TRAINER_KEYS = {
    "trainer.max_epochs": "Trainer(max_epochs=N)",
    "trainer.devices": "Trainer(devices=N)",
    "trainer.accelerator": "Trainer(accelerator=…)",
    "trainer.num_nodes": "Trainer(num_nodes=N)",
    "trainer.precision": "Trainer(precision=…)",
    "trainer.validate_every": "Trainer(check_val_every_n_epoch=N)",
    "trainer.log_every": "Trainer(log_every_n_steps=N)",
    "trainer.limit_train_batches": "Trainer(limit_train_batches=…)",
    "trainer.limit_val_batches": "Trainer(limit_val_batches=…)",
    "trainer.progress": "Trainer(enable_progress_bar=…)",
    "trainer.log_gradient_shares_every": "a callback, segkd.train.callbacks.gradient_shares.GradientShares",
    "checkpoint": "a ModelCheckpoint",
    "callbacks": "Trainer(callbacks=[…])",
    "logger": "Trainer(logger=…)",
    "wandb": "Trainer(logger=…)",
    "resume": "fit(…, ckpt_path=FILE)",
    "output_dir": "Trainer(default_root_dir=DIR)",
    "name": "the logger",
    "dry_run": "Trainer(fast_dev_run=True)",
    "check_teacher": "segkd.evaluate(teacher, …)",
}
"""Key without effect on a Distiller → what has it in the user's own program."""

_GROUPS_OF_DATA = ("dataset", "experiment")  # an experiment chooses a dataset too


def build_distiller_from_overrides(kind: type[D], overrides: Sequence[str], data: OwnData | None) -> D:
    """Return a Distiller; see `Distiller.from_config`. PyTorch's random state stays as it is.

    Args:
        kind: the class to build.
        overrides: as on the command line.
        data: facts of the user's own data; None for those of the dataset that the overrides choose.

    Raises:
        UserError: a key or a value is wrong, or parts do not fit each other.
    """
    given = [overrides] if isinstance(overrides, str) else list(overrides)
    keys = [override.lstrip("+~").partition("=")[0] for override in given]
    _check_keys(keys, has_own_data=data is not None)
    settings = compose_training(given)
    with torch.random.fork_rng(devices=[]):
        dataset = open_dataset(settings.dataset, settings.data.train_split) if data is None else data
        return assemble_distiller(kind, settings, dataset, total_steps=None)


def create_datamodule(overrides: Sequence[str]) -> SegmentationDataModule:
    """Return the batches of a dataset, by the keys `dataset`, `data` and `seed` of `python -m segkd.train`.

    Its samplers share the images among the processes: a Trainer of several needs `use_distributed_sampler=False`.

    Raises:
        UserError: a key or a value is wrong, or there are no data.
    """
    return build_datamodule(compose_training([overrides] if isinstance(overrides, str) else list(overrides)))


def compose_training(overrides: Sequence[str]) -> TrainSettings:
    """Return the settings of a training. Hydra is left as it was, so this works in a notebook and beside another @hydra.main.

    Raises:
        UserError: a key or a value is wrong.
    """
    for override in overrides:
        if override.startswith("-"):
            _refuse_option(override)
    with _as_command_line(overrides), _isolated_hydra():
        arrange_arguments(_refuse_option)
        load_plugins()
        register_resolvers()
        try:
            check_own_files()
            register_plugin_configs()
            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                cfg = compose("train", [*sys.argv[1:], "name=python"], return_hydra_config=True)
            return load_settings(_finish(cfg), TrainSettings)
        except Exception as error:
            sentence, _ = explain(error, "train")
            if sentence is None:
                raise
            raise UserError(sentence) from None


def _finish(cfg: DictConfig) -> DictConfig:
    """Return the config without Hydra's node, reconciled with its overrides."""
    hydra = cfg.hydra
    with open_dict(cfg):
        del cfg["hydra"]
    expand_home_in_config(cfg)
    apply_overrides(cfg, hydra)
    return cfg


def _check_keys(keys: Sequence[str], has_own_data: bool) -> None:
    """Check that no key is without effect, and that the data are chosen once.

    Raises:
        UserError: otherwise.
    """
    for key in keys:
        for own, place in OWN_TRAINER_KEYS.items():
            if key == own or key.startswith(f"{own}."):
                raise UserError(f"{key} belongs to your own program, not to the Distiller: {place}; leave it out")
    is_chosen = any(group in keys for group in _GROUPS_OF_DATA)
    if not has_own_data and not is_chosen:
        raise UserError(
            'the Distiller needs the classes of the data; give classes=["road", …] for your own, or a dataset: '
            '"dataset=NAME", "dataset.root=DIR"'
        )
    of_dataset = [
        key for key in keys if key.split(".")[0] == "dataset" or (key.startswith("data.") and key != "data.crop_size")
    ]
    if has_own_data and of_dataset:
        raise UserError(
            f"{of_dataset[0]} is of a dataset of segkd, and classes are given for your own data; leave one of them out"
        )


@contextmanager
def _as_command_line(overrides: Sequence[str]) -> Iterator[None]:
    """Let `sys.argv` hold the overrides: what prepares a command line, and what explains its errors, reads them there."""
    arguments = sys.argv
    sys.argv = ["segkd.train", *overrides]
    try:
        yield
    finally:
        sys.argv = arguments


@contextmanager
def _isolated_hydra() -> Iterator[None]:
    """Let Hydra start anew, and restore what the user's own @hydra.main or compose has set."""
    kinds: tuple[type, ...] = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
    outer: dict[type, Singleton] = {
        kind: Singleton._instances.pop(kind) for kind in kinds if kind in Singleton._instances
    }
    try:
        yield
    finally:
        for kind in kinds:
            Singleton._instances.pop(kind, None)
        Singleton._instances.update(outer)


def _refuse_option(option: str) -> NoReturn:
    raise UserError(
        f"'{option}': overrides are KEY=VALUE, without dashes; a folder of your own yaml files is hydra.searchpath=[file:///DIR]"
    )
