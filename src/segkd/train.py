"""`python -m segkd.train`: train a student from labels, a frozen teacher and a critic."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from segkd import __version__, build
from segkd.callbacks.metrics_file import METRICS, MetricsFile
from segkd.callbacks.wandb_curves import WandbCurves
from segkd.cli import launch
from segkd.config import TrainSettings, validate
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationData
from segkd.distiller import Distiller
from segkd.errors import UserError
from segkd.models.weights import describe, load_strictly, safe_load, save_student
from segkd.overrides import settle
from segkd.preflight import preflight
from segkd.record import RECORD, write_record


def train(cfg: DictConfig) -> float:
    """Run one training; returns the last `val/miou`, which is what a sweep optimises.

    A dry run ends before anything is written, and returns nothing that is a number.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    settle(cfg)
    settings = validate(cfg, TrainSettings)
    _refuse_sweeps(settings)
    directory = Path(HydraConfig.get().runtime.output_dir)
    if (directory / "last.ckpt").exists() and settings.resume is None and not settings.dry_run:
        raise UserError(
            f"{directory} already holds a run; choose another output_dir, or continue it with resume={directory / 'last.ckpt'}"
        )

    data = build.data(settings)
    distiller, found = build.distiller(settings, data)
    first = getattr(rank_zero_only, "rank", 0) == 0  # the other processes run this command too
    if settings.resume is not None:
        _check_resumable(settings.resume, distiller)
    if first:
        print(*found, sep="\n", end="\n" * bool(found), file=sys.stderr)
        preflight(
            distiller,
            data,
            build.crop_size(settings, data.train.source),
            settings.preflight,
            build.device("auto" if settings.dry_run else settings.trainer.accelerator),
            settings.dry_run,
        )
    if settings.dry_run:
        return math.nan

    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    config["output_dir"] = str(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if first:
        write_record(directory, config, settings.seed)
    wandb = WandbCurves(directory, config, name=_run_name(settings), **settings.wandb.model_dump())
    trainer = build.trainer(settings.trainer, directory, [MetricsFile(directory), wandb])
    teacher_before = distiller.teacher.fingerprint() if distiller.teacher is not None else None
    started = time.monotonic()
    try:
        _fit(settings, trainer, distiller, data)
    except UserError:
        if first:
            _withdraw(directory)
        raise
    finally:
        wandb.finish()
    return _finish(
        settings, directory, trainer, distiller, data.train.source, teacher_before, time.monotonic() - started
    )


def _fit(settings: TrainSettings, trainer: pl.Trainer, distiller: Distiller, data: SegmentationData) -> None:
    """Train, and score the last weights whatever `validate_every` is: they are the result."""
    resume = str(settings.resume) if settings.resume else None
    trainer.fit(distiller, datamodule=data, ckpt_path=resume, weights_only=True)
    if settings.trainer.max_epochs % settings.trainer.validate_every or "val/miou" not in trainer.callback_metrics:
        trainer.validate(distiller, datamodule=data, verbose=False)


def _withdraw(directory: Path) -> None:
    """Leave nothing of a run that a user's mistake ended before its first checkpoint."""
    if not (directory / "last.ckpt").exists():
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
    zeroed = save_student(distiller.student, directory, trained)
    summary: dict[str, Any] = {
        "val_miou": None if math.isnan(miou) else miou,
        "steps": int(distiller.step_count),
        "seconds": round(seconds, 1),
        "teacher_sha256": teacher_after,
        "denormal_weights_zeroed": zeroed,
    }
    (directory / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    cleaned = f", {zeroed} denormal weights zeroed" if zeroed else ""
    print(
        f"{settings.name}: val mIoU {100 * miou:.2f} after {summary['steps']} steps in {seconds:.0f} s{cleaned} → {directory}"
    )
    return miou


def _refuse_sweeps(settings: TrainSettings) -> None:
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    if settings.dry_run:
        raise UserError("a sweep (-m) makes folders, and dry_run=true makes none; look at one job of it at a time")
    if build.several(settings.trainer):
        raise UserError(
            "a sweep (-m) with several devices would start the whole sweep again on each of them; use trainer.devices=1 in sweeps, "
            "or call the command once for each run"
        )


def _check_resumable(checkpoint: Path, distiller: Distiller) -> None:
    if not checkpoint.is_file():
        raise UserError(f"no checkpoint to resume at {checkpoint}; give the last.ckpt of a run")
    if checkpoint.stat().st_size == 0:
        raise UserError(f"{checkpoint} is empty (0 bytes); resume from another")
    content = safe_load(checkpoint)
    if not isinstance(content, dict) or not {"state_dict", "loops", "optimizer_states", "student"} <= content.keys():
        raise UserError(
            f"{checkpoint} holds no training state; give the last.ckpt of a run (weights alone go to student.checkpoint)"
        )
    load_strictly(distiller, content["state_dict"], checkpoint)
    if content["student"] != describe(distiller.student):
        raise UserError(
            f"the student in {checkpoint} is not the one asked for; give the student's keys of the run that it comes from"
        )
    for optimizer, saved in zip(distiller.configure_optimizers(), content["optimizer_states"], strict=True):
        _check_same_recipe(checkpoint, optimizer.state_dict()["param_groups"], saved["param_groups"])


def _check_same_recipe(checkpoint: Path, asked: list[dict[str, Any]], saved: list[dict[str, Any]]) -> None:
    """Restored optimisers keep the values they were saved with, so others would be ignored."""
    for ours, theirs in zip(asked, saved, strict=True):
        for key in (ours.keys() | theirs.keys()) - {"params", "lr"}:
            if ours.get(key) != theirs.get(key):
                raise UserError(
                    f"{checkpoint} was trained with {key.removeprefix('initial_')}={theirs.get(key)}, and {ours.get(key)} is asked for; "
                    "resume with the same optimizers"
                )


def _run_name(settings: TrainSettings) -> str:
    job = HydraConfig.get().job
    return f"{settings.name}: {job.override_dirname}" if job.override_dirname else settings.name


if __name__ == "__main__":
    launch(train, "train")
