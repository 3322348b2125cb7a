"""Train with a plain Trainer of two processes on a plain loader of pairs; see tests/distillation/test_own_data.py.

python own_data_worker.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from segkd.distillation.distiller import Distiller
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.pixelwise import Pixelwise
from segkd.models.base import SegmentationModel
from segkd.models.wrapped import wrap_model
from segkd.types import Batch

CLASSES = ["road", "car", "sky"]


def make_model(width: int = 4, outputs: int = 3) -> SegmentationModel:
    """Make a wrapped module of two convolutions at 1/2."""
    layers = [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, outputs, 1)]
    return wrap_model(nn.Sequential(*layers), features={"encoder": "2"})


def make_pairs(length: int, size: int = 32) -> TensorDataset:
    """Make pairs of random images, uint8, and targets."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (length, 3, size, size), generator=generator, dtype=torch.uint8)
    return TensorDataset(images, torch.randint(0, 3, (length, size, size), generator=generator))


class RecordingDistiller(Distiller):
    """Records which images are trained on, by their first pixel."""

    images: list[int]
    seeds: list[int]

    def forward_networks(self, batch: Batch):  # type: ignore[no-untyped-def]
        self.images += batch.images[:, :, 0, 0].long().mul(torch.tensor([65536, 256, 1])).sum(1).tolist()
        self.seeds += batch.seeds.tolist()
        return super().forward_networks(batch)


def main(directory: Path) -> None:
    """Train an epoch, and save what each process holds."""
    torch.set_num_threads(1)
    pl.seed_everything(0)
    losses = {"cross_entropy": CrossEntropy(), "pixelwise": Pixelwise()}
    distiller = RecordingDistiller(make_model(), make_model(), losses, classes=CLASSES)
    distiller.images, distiller.seeds = [], []
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(distiller, DataLoader(make_pairs(8), 2, shuffle=True), DataLoader(make_pairs(4), 1))
    result = {
        "weights": nn.utils.parameters_to_vector(distiller.student.parameters()).detach(),
        "step_count": int(distiller.step_count),
        "miou": float(trainer.callback_metrics["val/miou"]),
        "images": distiller.images,
        "seeds": distiller.seeds,
    }
    torch.save(result, directory / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
