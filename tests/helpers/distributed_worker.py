"""Trains for four batches of eight in one process or in several; see test_processes.py.

    python processes.py WORLD DIRECTORY CRITIC_STEPS [--local-means] [--in-parts]

Written to be compared: BatchNorm stands still (its statistics differ between processes by nature), every second image is
mostly void, so that the halves of a batch count differently, and dropout and the gradient penalty draw by sample.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

import segkd.distillation.adversary
import segkd.losses.cross_entropy
import segkd.losses.pairwise
import segkd.losses.pixelwise
from segkd.config.schema import TrainerSettings
from segkd.data.base import Sample
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.streets import Streets
from segkd.data.transforms import Augmentation, to_batch
from segkd.distillation.adversary import Adversary, Wasserstein
from segkd.distillation.distiller import Distiller
from segkd.distillation.schedules import Poly
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.pairwise import Pairwise
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization
from segkd.models.discriminator import Discriminator
from segkd.models.frozen import Frozen
from segkd.models.pspnet import PSPNet
from segkd.train.trainer import choose_strategy
from segkd.types import IGNORE_INDEX

SIZE = (128, 128)
SETTINGS = TrainerSettings(
    max_epochs=1, devices=1, accelerator="cpu", num_nodes=1, precision="32-true", gradient_clip=None, validate_every=1,
    log_every=1, limit_train_batches=None, limit_val_batches=None, progress=False,
)  # fmt: skip


class HalfVoid(Streets):
    """Streets of which every second is void but for a strip."""

    def __getitem__(self, index: int) -> Sample:
        image, label = super().__getitem__(index)
        if index % 2:
            label = label.copy()
            label[:, 20:] = IGNORE_INDEX
        return Sample(image, label)


class Recording(Distiller):
    """Keeps every gradient that an optimiser is about to use."""

    gradients: list[Tensor]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradients.append(nn.utils.parameters_to_vector([p.grad for p in parameters]).clone())


def local_mean(total: Tensor, count: Tensor) -> Tensor:
    """The fault that the comparison must find: each process divides by its own count."""
    return total / count.clamp(min=1)


def network(seed: int) -> PSPNet:
    """Random weights, with the running statistics that they have on a few images."""
    torch.manual_seed(seed)
    made = PSPNet(11, Normalization(Streets.mean, Streets.std), depth=18, width=8, pyramid=8, dropout=0.3)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    scenes = Streets("train", images=8)
    made(torch.stack([to_batch(*scenes[i]).images for i in range(8)]))
    return made


def main(world: int, directory: Path, n_critic: int, micro_batches: int) -> None:
    torch.set_num_threads(1)
    student, teacher = network(0), network(1)
    student.eval()
    for module in student.modules():
        if type(module).__name__ == "SampleDropout2d":
            module.train()
    losses = LossSum({"cross_entropy": CrossEntropy(), "pixelwise": Pixelwise(), "pairwise": Pairwise()})
    losses.setup(student.features, teacher.features)
    torch.manual_seed(2)
    adversary = Adversary(Discriminator(11, width=8), Wasserstein(), weight=0.1, n_critic=n_critic)
    optimizers = {name: lambda p: SGD(p, lr=0.001, momentum=0.9) for name in ("student", "discriminator")}
    module = Recording(
        student, Frozen(teacher), losses, adversary, optimizers, Poly(), 4, Streets.classes, gradient_clip=1.0,
        micro_batches=micro_batches,
    )  # fmt: skip
    module.gradients = []
    data = SegmentationDataModule(
        *(HalfVoid(split, images=32) for split in ("train", "val")), Augmentation(SIZE, fill=Streets.mean), batch_size=8
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=choose_strategy(SETTINGS.model_copy(update={"devices": world})),
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    outcome = {"weights": module.state_dict(), "gradients": module.gradients}
    torch.save(outcome, directory / f"{world}_{trainer.global_rank}.pt")


if __name__ == "__main__":
    if "--local-means" in sys.argv:
        for module in (
            segkd.losses.cross_entropy,
            segkd.losses.pairwise,
            segkd.losses.pixelwise,
            segkd.distillation.adversary,
        ):
            module.global_mean = local_mean
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), 4 if "--in-parts" in sys.argv else 1)
