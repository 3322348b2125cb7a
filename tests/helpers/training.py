"""Overrides of `segkd.train` for small trainings, and their curves."""

from __future__ import annotations

import csv
from pathlib import Path

TINY_TRAINING = (
    "dataset.images=8",
    "student.p=1",
    "student.q=1",
    "data.batch_size=4",
    "data.workers=0",
    "data.crop_size=[128,128]",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.progress=false",
    "wandb.mode=disabled",
    "hydra.job.chdir=false",
)


def list_distillation_overrides(teacher: Path) -> tuple[str, ...]:
    """Return overrides that distill a small student with the paper's three losses."""
    return (
        *TINY_TRAINING,
        "model@teacher=espnet",
        f"teacher.checkpoint={teacher}",
        "loss=[cross_entropy,pixelwise,pairwise]",
        "adversary=holistic",
        "adversary.discriminator.width=8",
        "check_teacher=off",
    )


def read_metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
