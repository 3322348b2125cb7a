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

from segkd import __version__, build, devices
from segkd.callbacks.last_checkpoint import LastCheckpoint
from segkd.callbacks.metrics_file import METRICS, MetricsFile
from segkd.callbacks.wandb_curves import WandbCurves
from segkd.callbacks.wandb_panels import WandbPanels
from segkd.cli import launch
from segkd.config import TrainSettings, validate
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationData
from segkd.distiller import Distiller
from segkd.errors import Refused, UserError
from segkd.files import whole
from segkd.models.weights import save_student
from segkd.overrides import settle
from segkd.preflight import preflight
from segkd.record import RECORD, SUMMARY, ended, write_record
from segkd.survival.checkpoints import LAST, Checkpoints
from segkd.survival.resume import recipe_of, resumed
from segkd.survival.signals import Signals
from segkd.survival.state import place


def train(cfg: DictConfig) -> float:
    """Run one training; returns the last `val/miou`, which is what a sweep optimises.

    A dry run ends before anything is written, and returns nothing that is a number.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    settle(cfg)
    settings = validate(cfg, TrainSettings)
    _refuse(settings)
    directory = Path(HydraConfig.get().runtime.output_dir)
    if (directory / LAST).exists() and settings.resume is None and not settings.dry_run:
        raise UserError(f"{directory} already holds a run; choose another output_dir, or continue it with resume=auto")
    with Signals() as signals:
        try:
            miou = _train(cfg, settings, directory, signals)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"no room is left for {directory}; make some, and go on with resume=auto output_dir={directory}"
            ) from None
    if _one_of_many() and math.isnan(miou):
        raise Refused(
            f"val/miou of {directory} is not a number, by which a sweep could rank it; is any pixel of val labelled?"
        )
    return miou


def _train(cfg: DictConfig, settings: TrainSettings, directory: Path, signals: Signals) -> float:
    """Everything from here on may be asked to stop.

    Raises:
        OSError: the record or the result cannot be written; checkpoints and curves wait for room instead.
    """
    data = build.data(settings)
    distiller, found = build.distiller(settings, data)
    first = getattr(rank_zero_only, "rank", 0) == 0  # the other processes run this command too
    files, per_epoch = Checkpoints(directory), build.steps_per_epoch(settings.trainer, data)
    recipe = recipe_of(settings, len(data.train), per_epoch)
    state = resumed(settings, files, distiller, recipe)
    if state is not None and _one_of_many() and (miou := ended(directory, distiller.total_steps)) is not None:
        return miou
    if first:
        print(*found, sep="\n", end="\n" * bool(found), file=sys.stderr)
        preflight(
            distiller,
            data,
            build.crop_size(settings, data.train.source),
            settings.preflight,
            devices.device("auto" if settings.dry_run else settings.trainer.accelerator),
            settings.dry_run,
        )
    if settings.dry_run:
        return math.nan

    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    config["output_dir"] = str(directory)
    directory.mkdir(parents=True, exist_ok=True)
    curves = MetricsFile(directory)
    if first:
        write_record(directory, config, settings.seed)
        curves.cut(int(distiller.step_count))
    asked = settings.wandb.model_dump(exclude={"panels", "panels_every"})
    wandb = WandbCurves(directory, config, name=_run_name(settings), **{**asked, "group": _group(settings)})
    watchers = [WandbPanels(wandb, settings.wandb.panels_every, settings.wandb.panels)]
    every = settings.checkpoint
    last = LastCheckpoint(files, recipe, every.every_steps, every.every_minutes, signals, state)
    trainer = build.trainer(settings.trainer, directory, [curves, wandb], last, watchers)
    teacher_before = distiller.teacher.fingerprint() if distiller.teacher is not None else None
    try:
        if state is not None:
            _go_on(settings, trainer, distiller, data, state["epochs"], per_epoch)
        _fit(settings, trainer, distiller, data)
    except Exception as error:
        if trainer.strategy.launcher is not None:
            # Its processes would wait for this one: on GPUs for half an hour.
            trainer.strategy.launcher.kill(signal.SIGKILL)
        if first and isinstance(error, UserError):
            _withdraw(directory)
        raise
    except SystemExit:
        if _is_child(trainer):
            # Lightning would kill the parent, which has still to finish, for any other code.
            raise SystemExit(0) from None
        raise
    finally:
        wandb.finish()
    return _finish(settings, directory, trainer, distiller, data.train.source, teacher_before, last.elapsed)


def _go_on(
    settings: TrainSettings,
    trainer: pl.Trainer,
    distiller: Distiller,
    data: SegmentationData,
    epochs: int,
    per_epoch: int,
) -> None:
    """Take up a run after its last whole epoch and the batches that it had seen of the next."""
    steps = int(distiller.step_count)
    batch = steps - epochs * per_epoch
    if batch == per_epoch:  # what is left of that epoch is its end
        place(trainer, epochs, 0, steps - 1)
        epochs, batch = epochs + 1, 0
        if epochs % settings.trainer.validate_every == 0 and epochs < settings.trainer.max_epochs:
            trainer.validate(distiller, datamodule=data, verbose=False)
    place(trainer, epochs, batch, steps)
    data.start = epochs, batch


def _fit(settings: TrainSettings, trainer: pl.Trainer, distiller: Distiller, data: SegmentationData) -> None:
    """Train, and score the last weights whatever `validate_every` is: they are the result."""
    trainer.fit(distiller, datamodule=data)
    if settings.trainer.max_epochs % settings.trainer.validate_every or "val/miou" not in trainer.callback_metrics:
        trainer.validate(distiller, datamodule=data, verbose=False)


def _is_child(trainer: pl.Trainer) -> bool:
    """Whether Lightning started this process from another that runs the same command."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0


def _withdraw(directory: Path) -> None:
    """Leave nothing of a run that a user's mistake ended before its first checkpoint."""
    if not (directory / LAST).exists():
        for name in (*RECORD, METRICS):
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
    teacher_after = distiller.teacher.fingerprint() if distiller.teacher is not None else None
    if teacher_after != teacher_before:
        raise RuntimeError("the teacher changed while the student was trained; its result means nothing")
    trained = {
        "classes": list(facts.classes),
        "colors": [list(color) for color in facts.colors],
        "dataset": facts.title(),
        "experiment": settings.name,
        "seed": settings.seed,
        "segkd": __version__,
    }
    zeroed = save_student(distiller.result, directory, trained)
    summary: dict[str, Any] = {
        "val_miou": None if math.isnan(miou) else miou,
        "steps": int(distiller.step_count),
        "seconds": round(seconds, 1),
        "teacher_sha256": teacher_after,
        "denormal_weights_zeroed": zeroed,
    }
    with whole(directory / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=1) + "\n")
    cleaned = f", {zeroed} denormal weights zeroed" if zeroed else ""
    print(
        f"{settings.name}: val mIoU {100 * miou:.2f} after {summary['steps']} step{'s' * (summary['steps'] != 1)} "
        f"in {seconds:.0f} s{cleaned} → {directory}"
    )
    return miou


def _refuse(settings: TrainSettings) -> None:
    """Refuse what no run can be made of, before anything is read."""
    if not settings.dry_run:
        devices.check_devices(settings.trainer)
    if settings.data.unlabelled is None and settings.trainer.micro_batches > settings.data.batch_size:
        raise UserError(
            f"trainer.micro_batches={settings.trainer.micro_batches} is more than the {settings.data.batch_size} images of a batch; "
            "lower it, or raise data.batch_size"
        )
    if not _one_of_many():
        return
    if settings.dry_run:
        raise UserError("a sweep (-m) makes folders, and dry_run=true makes none; look at one job of it at a time")
    if devices.several(settings.trainer):
        raise UserError(
            "a sweep (-m) with several devices would start the whole sweep again on each of them; use trainer.devices=1 in sweeps, "
            "or call the command once for each run"
        )


def _run_name(settings: TrainSettings) -> str:
    job = HydraConfig.get().job
    return f"{settings.name}: {job.override_dirname}" if job.override_dirname else settings.name


def _group(settings: TrainSettings) -> str | None:
    """The jobs of a sweep are a group at W&B, with the name of its folder, or with the one that is given."""
    return settings.wandb.group or (Path(HydraConfig.get().sweep.dir).name if _one_of_many() else None)


def _one_of_many() -> bool:
    """Whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


if __name__ == "__main__":
    launch(train, "train")
