"""Arguments of the smallest trainings, and what they leave."""

from __future__ import annotations

import csv
from pathlib import Path

TINY = (
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


def distilled(teacher: Path) -> tuple[str, ...]:
    """Return the arguments of a student with all three losses."""
    return (
        *TINY,
        "model@teacher=espnet",
        f"teacher.checkpoint={teacher}",
        "loss=[cross_entropy,pixelwise,pairwise]",
        "adversary=holistic",
        "adversary.discriminator.width=8",
        "check_teacher=off",
    )


def read_curves(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
