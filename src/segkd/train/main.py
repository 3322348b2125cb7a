"""`python -m segkd.train`: train a student from labels, a frozen teacher and a critic."""

from __future__ import annotations

import errno
import json
import logging
import math
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from segkd import __version__
from segkd.build.datamodule import build_datamodule, count_steps_per_epoch, get_crop_size
from segkd.build.distiller import build_distiller
from segkd.config.overrides import apply_overrides
from segkd.config.schema import TrainSettings, load_settings
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.errors import CheckFailed, UserError
from segkd.models.checkpoint_io import save_student
from segkd.runs.layout import LAST_CHECKPOINT, METRICS_FILE, RECORD_FILES, SUMMARY_FILE
from segkd.runs.record import finished_miou, write_record
from segkd.train.callbacks.image_panels import ImagePanels
from segkd.train.callbacks.resumable_checkpoint import ResumableCheckpoint
from segkd.train.check_teacher import check_teacher
from segkd.train.checkpointing.files import CheckpointFiles
from segkd.train.checkpointing.resume import load_for_resume, resume_fingerprint
from segkd.train.checkpointing.state import fast_forward
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.train.loggers.wandb import ResilientWandbLogger
from segkd.train.trainer import build_trainer, check_devices, is_distributed
from segkd.utils.devices import resolve_device
from segkd.utils.files import atomic_write
from segkd.utils.signals import GracefulShutdown


def train(cfg: DictConfig) -> float:
    """Run one training; returns the last `val/miou`, which is what a sweep optimises.

    A dry run ends before anything is written, and returns nothing that is a number.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    apply_overrides(cfg)
    settings = load_settings(cfg, TrainSettings)
    _check_settings(settings)
    directory = Path(HydraConfig.get().runtime.output_dir)
    if (directory / LAST_CHECKPOINT).exists() and settings.resume is None and not settings.dry_run:
        raise UserError(f"{directory} already holds a run; choose another output_dir, or continue it with resume=auto")
    with GracefulShutdown() as signals:
        try:
            miou = _train(cfg, settings, directory, signals)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"no room is left for {directory}; make some, and go on with resume=auto output_dir={directory}"
            ) from None
    if _is_multirun() and math.isnan(miou):
        raise CheckFailed(
            f"val/miou of {directory} is not a number, by which a sweep could rank it; is any pixel of val labelled?"
        )
    return miou


def _train(cfg: DictConfig, settings: TrainSettings, directory: Path, signals: GracefulShutdown) -> float:
    """Everything from here on may be asked to stop.

    Raises:
        OSError: the record or the result cannot be written; checkpoints and curves wait for room instead.
    """
    data = build_datamodule(settings)
    distiller, found = build_distiller(settings, data)
    first = getattr(rank_zero_only, "rank", 0) == 0  # the other processes run this command too
    files, per_epoch = CheckpointFiles(directory), count_steps_per_epoch(settings.trainer, data)
    recipe = resume_fingerprint(settings, len(data.train), per_epoch)
    state = load_for_resume(settings, files, distiller, recipe)
    if state is not None and _is_multirun() and (miou := finished_miou(directory, distiller.total_steps)) is not None:
        return miou
    if first:
        print(*found, sep="\n", end="\n" * bool(found), file=sys.stderr)
        check_teacher(
            distiller,
            data,
            get_crop_size(settings, data.train.source),
            settings.check_teacher,
            resolve_device("auto" if settings.dry_run else settings.trainer.accelerator),
            settings.dry_run,
        )
    if settings.dry_run:
        return math.nan

    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    config["output_dir"] = str(directory)
    directory.mkdir(parents=True, exist_ok=True)
    curves = MetricsFileLogger(directory)
    if first:
        write_record(directory, config, settings.seed)
        curves.truncate_after(int(distiller.step_count))
    asked = settings.wandb.model_dump(exclude={"panels", "panels_every"})
    wandb = ResilientWandbLogger(directory, config, name=_run_name(settings), **{**asked, "group": _group(settings)})
    watchers = [ImagePanels(wandb, settings.wandb.panels_every, settings.wandb.panels)]
    every = settings.checkpoint
    last = ResumableCheckpoint(files, recipe, every.every_steps, every.every_minutes, signals, state)
    trainer = build_trainer(settings.trainer, directory, [curves, wandb], last, watchers)
    teacher_before = distiller.teacher.state_hash() if distiller.teacher is not None else None
    try:
        if state is not None:
            _fast_forward(settings, trainer, distiller, data, state["epochs"], per_epoch)
        _fit(settings, trainer, distiller, data)
    except Exception as error:
        if trainer.strategy.launcher is not None:
            # Its processes would wait for this one: on GPUs for half an hour.
            trainer.strategy.launcher.kill(signal.SIGKILL)
        if first and isinstance(error, UserError):
            _remove_partial_run(directory)
        raise
    except SystemExit:
        if _is_child(trainer):
            # Lightning would kill the parent, which has still to finish, for any other code.
            raise SystemExit(0) from None
        raise
    finally:
        wandb.finish()
    return _finish(settings, directory, trainer, distiller, data.train.source, teacher_before, last.elapsed)


def _fast_forward(
    settings: TrainSettings,
    trainer: pl.Trainer,
    distiller: Distiller,
    data: SegmentationDataModule,
    epochs: int,
    per_epoch: int,
) -> None:
    """Take up a run after its last whole epoch and the batches that it had seen of the next."""
    steps = int(distiller.step_count)
    batch = steps - epochs * per_epoch
    if batch == per_epoch:  # what is left of that epoch is its end
        fast_forward(trainer, epochs, 0, steps - 1)
        epochs, batch = epochs + 1, 0
        if epochs % settings.trainer.validate_every == 0 and epochs < settings.trainer.max_epochs:
            trainer.validate(distiller, datamodule=data, verbose=False)
    fast_forward(trainer, epochs, batch, steps)
    data.start = epochs, batch


def _fit(settings: TrainSettings, trainer: pl.Trainer, distiller: Distiller, data: SegmentationDataModule) -> None:
    """Train, and score the last weights whatever `validate_every` is: they are the result."""
    trainer.fit(distiller, datamodule=data)
    if settings.trainer.max_epochs % settings.trainer.validate_every or "val/miou" not in trainer.callback_metrics:
        trainer.validate(distiller, datamodule=data, verbose=False)


def _is_child(trainer: pl.Trainer) -> bool:
    """Whether Lightning started this process from another that runs the same command."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0


def _remove_partial_run(directory: Path) -> None:
    """Leave nothing of a run that a user's mistake ended before its first checkpoint."""
    if not (directory / LAST_CHECKPOINT).exists():
        for name in (*RECORD_FILES, METRICS_FILE):
            (directory / name).unlink(missing_ok=True)


def _finish(
    settings: TrainSettings,
    directory: Path,
    trainer: pl.Trainer,
    distiller: Distiller,
    facts: SegmentationDataset,
    teacher_before: str | None,
    seconds: float,
) -> float:
    """Write the student and the summary; one line for whoever watched."""
    miou = float(trainer.callback_metrics.get("val/miou", float("nan")))
    if not trainer.is_global_zero:
        return miou
    teacher_after = distiller.teacher.state_hash() if distiller.teacher is not None else None
    if teacher_after != teacher_before:
        raise RuntimeError("the teacher changed while the student was trained; its result means nothing")
    trained = {
        "classes": list(facts.classes),
        "colors": [list(color) for color in facts.colors],
        "dataset": facts.display_name(),
        "experiment": settings.name,
        "seed": settings.seed,
        "segkd": __version__,
    }
    zeroed = save_student(distiller.eval_model, directory, trained)
    summary: dict[str, Any] = {
        "val_miou": None if math.isnan(miou) else miou,
        "steps": int(distiller.step_count),
        "seconds": round(seconds, 1),
        "teacher_sha256": teacher_after,
        "denormal_weights_zeroed": zeroed,
    }
    with atomic_write(directory / SUMMARY_FILE) as part:
        part.write_text(json.dumps(summary, indent=1) + "\n")
    cleaned = f", {zeroed} denormal weights zeroed" if zeroed else ""
    print(
        f"{settings.name}: val mIoU {100 * miou:.2f} after {summary['steps']} step{'s' * (summary['steps'] != 1)} "
        f"in {seconds:.0f} s{cleaned} → {directory}"
    )
    return miou


def _check_settings(settings: TrainSettings) -> None:
    """Refuse what no run can be made of, before anything is read."""
    if not settings.dry_run:
        check_devices(settings.trainer)
    if settings.data.unlabelled is None and settings.trainer.micro_batches > settings.data.batch_size:
        raise UserError(
            f"trainer.micro_batches={settings.trainer.micro_batches} is more than the {settings.data.batch_size} images of a batch; "
            "lower it, or raise data.batch_size"
        )
    if not _is_multirun():
        return
    if settings.dry_run:
        raise UserError("a sweep (-m) makes folders, and dry_run=true makes none; look at one job of it at a time")
    if is_distributed(settings.trainer):
        raise UserError(
            "a sweep (-m) with several devices would start the whole sweep again on each of them; use trainer.devices=1 in sweeps, "
            "or call the command once for each run"
        )


def _run_name(settings: TrainSettings) -> str:
    job = HydraConfig.get().job
    return f"{settings.name}: {job.override_dirname}" if job.override_dirname else settings.name


def _group(settings: TrainSettings) -> str | None:
    """The jobs of a sweep are a group at W&B, with the name of its folder, or with the one that is given."""
    return settings.wandb.group or (Path(HydraConfig.get().sweep.dir).name if _is_multirun() else None)


def _is_multirun() -> bool:
    """Whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)
