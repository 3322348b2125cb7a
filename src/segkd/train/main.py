"""Train a student from labels, a frozen teacher and a discriminator."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from segkd.builders.datamodule import build_datamodule, count_steps_per_epoch
from segkd.builders.distiller import build_distiller
from segkd.config.overrides import apply_overrides
from segkd.config.schema import load_settings
from segkd.config.training import TrainSettings
from segkd.data.small_images import log_small_images
from segkd.errors import CheckFailed
from segkd.runs.record import read_finished_miou
from segkd.train.callbacks.own import OwnCallbacks
from segkd.train.check_labels import check_labels
from segkd.train.check_settings import check_settings, is_multirun, resolve_devices
from segkd.train.check_teacher import check_teacher
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.train.checkpointing.resume import compute_resume_fingerprint, load_for_resume
from segkd.train.claim_folder import choose_run_folder, lock_run_folder
from segkd.train.fit import fit
from segkd.train.run_folder import RunFolder, explain_full_disk
from segkd.train.summary import print_summary
from segkd.train.trainer import build_run_trainer
from segkd.utils.processes import is_rank_zero
from segkd.utils.signals import GracefulShutdown


def train(cfg: DictConfig) -> float:
    """Run one training and return the last `val/miou`, by which a sweep ranks its jobs; NaN for a dry run.

    Raises:
        UserError: the settings, the data or the checkpoints do not allow this run.
        CheckFailed: in a sweep, where the score is NaN.
    """
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    apply_overrides(cfg)
    settings = resolve_devices(load_settings(cfg, TrainSettings))
    directory = choose_run_folder(cfg, settings)
    with GracefulShutdown() as shutdown, explain_full_disk(directory), lock_run_folder(directory, settings):
        check_settings(settings, directory)
        miou = _train(cfg, settings, directory, shutdown)
    if is_multirun() and math.isnan(miou):
        raise CheckFailed(f"val/miou of {directory} is NaN, so a sweep cannot rank it; is any pixel of val labeled?")
    return miou


def _train(cfg: DictConfig, settings: TrainSettings, directory: Path, shutdown: GracefulShutdown) -> float:
    datamodule = build_datamodule(settings)
    distiller = build_distiller(settings, datamodule)
    steps_per_epoch = count_steps_per_epoch(settings.trainer, datamodule)
    fingerprint = compute_resume_fingerprint(settings, datamodule.train.source, len(datamodule.train), steps_per_epoch)
    files = CheckpointFiles(directory)
    state = load_for_resume(settings, files, distiller, fingerprint)
    if (
        state is not None
        and is_multirun()
        and (miou := read_finished_miou(directory, distiller.total_steps)) is not None
    ):
        return miou
    if is_rank_zero():  # the other processes run this command too
        check_labels(datamodule.train.source, datamodule.val.source)
        log_small_images(datamodule.val.source, distiller.student.min_size, type(distiller.student).__name__)
        print_summary(settings, distiller, datamodule.train.source)
        check_teacher(settings, distiller, datamodule)
    if settings.dry_run:
        return math.nan
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    config["trainer"] |= settings.trainer.model_dump(include={"devices", "num_nodes"})
    splits = {"train": datamodule.train.source, "val": datamodule.val.source}
    own = OwnCallbacks(settings.callbacks)
    with RunFolder(directory, settings, config, distiller, splits) as run:
        trainer, checkpoint = build_run_trainer(settings, run, own, files, fingerprint, state, shutdown)
        fit(trainer, distiller, datamodule, steps_per_epoch, state, checkpoint)
        return run.finish(trainer, distiller, datamodule.train.source, checkpoint.elapsed)
