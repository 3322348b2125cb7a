"""Build the loggers of a run."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning.loggers.logger import Logger

from segkd.config.instantiate import Spec
from segkd.config.training import WandbSettings
from segkd.errors import UserError
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.train.loggers.guarded import GuardedLogger
from segkd.train.loggers.run_info import RunInfo
from segkd.train.loggers.wandb import WandbLogger, choose_mode
from segkd.utils.packages import explain_install
from segkd.utils.processes import is_rank_zero

TIMEOUT = 60.0
"""Seconds to wait for a logger at each call; `wandb.timeout` is W&B's. The first start of MLflow takes ten."""

log = logging.getLogger(__name__)


def check_loggers(specs: Mapping[str, Spec]) -> None:
    """Check that the packages of segkd's own loggers are installed; without W&B's, a training goes on.

    Raises:
        UserError: one is not; or a key of W&B stands below `logger`.
    """
    for name, spec in specs.items():
        if spec.target is WandbLogger and spec.arguments:
            key = next(iter(spec.arguments))
            raise UserError(f"logger.{name}.{key}: the keys of W&B are not below logger; use wandb.{key}")
        package = getattr(spec.target, "package", None)
        if package is not None and not _is_installed(package):
            raise UserError(f"logger={name} needs the package '{package}'; {explain_install(package)}")


def build_loggers(
    specs: Mapping[str, Spec], wandb: WandbSettings, run: RunInfo, curves: MetricsFileLogger
) -> Iterator[Logger]:
    """Yield the loggers in their order; the file of curves, which every run has, is the last if it is not named.

    Raises:
        UserError: a package that a logger needs is not installed.
    """
    for name, spec in specs.items():
        if spec.target is MetricsFileLogger:
            yield curves
        elif spec.target is WandbLogger:
            yield from _build_wandb(wandb, run)
        else:
            yield _guard(name, spec, run)
    if all(spec.target is not MetricsFileLogger for spec in specs.values()):
        yield curves


def _build_wandb(settings: WandbSettings, run: RunInfo) -> list[Logger]:
    if choose_mode(settings.mode) == "disabled":
        return []
    if not _is_installed("wandb"):
        log.warning("wandb is not installed; curves go to metrics.csv only")
        return []
    options = settings.model_dump(exclude={"panels", "panels_every"})
    return [_start(WandbLogger.title, lambda: WandbLogger(run, **options), settings.timeout)]


def _guard(name: str, spec: Spec, run: RunInfo) -> GuardedLogger:
    """Build a logger of segkd, which knows its run, or another, which is given the folder if it takes one."""
    if spec.target.__module__.startswith("segkd."):
        given: dict[str, Any] = {"run": run}
    else:
        takes_folder = "save_dir" in inspect.signature(spec.target).parameters and "save_dir" not in spec.arguments
        given = {"save_dir": str(run.directory)} if takes_folder else {}
    title = getattr(spec.target, "title", None) if "run" in given else None

    def build() -> Logger:
        try:
            logger: Logger = spec.build(**given)
        except UserError as error:  # what the logger itself raised
            raise error.__context__ or error from None
        if "run" not in given:
            logger.log_hyperparams(run.config)
        return logger

    return _start(title or f"the logger '{name}'", build, TIMEOUT)


def _start(title: str, build: Any, timeout: float) -> GuardedLogger:
    return GuardedLogger(title, build if is_rank_zero() else None, timeout)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that has no spec
        return True
