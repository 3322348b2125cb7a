"""Distillation with your own Trainer, data loaders, teacher and callback: `python examples/own_trainer.py`."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import segkd

CLASSES = ["background", "disk", "square"]
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def make_shapes(length: int, seed: int) -> TensorDataset:
    """Return pairs of an image, 3 H W RGB in 0..255, and its target, H W class indices (255 would be unlabeled)."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.arange(64)[:, None], torch.arange(64)
    target = torch.zeros(length, 64, 64, dtype=torch.long)
    for label in target:
        (disk_y, disk_x), (top, left) = torch.randint(12, 44, (2, 2), generator=generator).tolist()
        label[(y - disk_y) ** 2 + (x - disk_x) ** 2 < 100] = 1
        label[top : top + 16, left : left + 16] = 2
    colors = torch.tensor([[90.0, 90.0, 90.0], [200.0, 80.0, 60.0], [60.0, 90.0, 200.0]])
    noise = 40 * torch.randn(length, 3, 64, 64, generator=generator)
    return TensorDataset((colors[target].permute(0, 3, 1, 2) + noise).clamp(0, 255), target)


class PrintScores(pl.Callback):
    """Prints the mIoU of each validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what the Distiller has logged."""
        print(f"epoch {trainer.current_epoch}: val mIoU {trainer.callback_metrics['val/miou']:.3f}")


def fit(distiller: segkd.Distiller) -> None:
    """Train and validate a student."""
    trainer = pl.Trainer(max_epochs=3, callbacks=[PrintScores()], num_sanity_val_steps=0, **QUIET)
    trainer.fit(distiller, DataLoader(make_shapes(64, 0), 8, shuffle=True), DataLoader(make_shapes(16, 1), 8))


def main() -> None:
    """Train a teacher of your own on the labels, then a student on the labels and the teacher."""
    pl.seed_everything(0)
    layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 3, 3, 1, 1)]
    teacher = segkd.wrap_model(nn.Sequential(*layers), features={"encoder": "2"})
    student = segkd.create_model("espnet_c", len(CLASSES), p=1, q=1)
    labels = {"cross_entropy": segkd.create_loss("cross_entropy")}
    distilled = {name: segkd.create_loss(name) for name in ("pixelwise", "pairwise")}
    optimizers = {"student": lambda parameters: torch.optim.AdamW(parameters, lr=0.01)}
    fit(segkd.Distiller(teacher, None, labels, optimizers=optimizers, classes=CLASSES))
    fit(segkd.Distiller(student, teacher, {**labels, **distilled}, optimizers=optimizers, classes=CLASSES))
    print(f"test mIoU {segkd.evaluate(student, make_shapes(16, 2)).miou:.3f}")


if __name__ == "__main__":
    main()
