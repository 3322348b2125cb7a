"""Train for four batches of eight in one process or several; see test_processes.py.

    python distributed_worker.py WORLD_SIZE DIRECTORY N_CRITIC [--local-means] [--micro-batches]

`--local-means` trains a second time, with each process's own means.

The weights can be compared: BatchNorm is in evaluation mode (its statistics differ between processes), every second image is
mostly void, so that the halves of a batch have unequal counts, and dropout and gradient penalty are seeded by sample.
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
from segkd.config.training import TrainerSettings
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
    log_every=1, log_gradient_shares_every=None, ema=None, on_nan="stop", sync_batchnorm=False, channels_last=False,
    compile=False, micro_batches=1, teacher_bf16=False, limit_train_batches=None, limit_val_batches=None, progress=False,
)  # fmt: skip


class HalfVoid(Streets):
    """Streets of which every second is void except for a strip."""

    def __getitem__(self, index: int) -> Sample:
        image, label = super().__getitem__(index)
        if index % 2:
            label = label.copy()
            label[:, 20:] = IGNORE_INDEX
        return Sample(image, label)


class RecordingDistiller(Distiller):
    """Records every gradient before the optimizer uses it."""

    gradients: list[Tensor]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradients.append(nn.utils.parameters_to_vector([p.grad for p in parameters]).clone())


def compute_local_mean(total: Tensor, count: Tensor) -> Tensor:
    """The fault that the comparison must detect: each process divides by its own count."""
    return total / count.clamp(min=1)


def make_network(seed: int) -> PSPNet:
    """Make a network with random weights, and the running statistics of a few images."""
    torch.manual_seed(seed)
    network = PSPNet(11, Normalization(Streets.mean, Streets.std), depth=18, width=8, pyramid=8, dropout=0.3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    scenes = Streets("train", images=8)
    network(torch.stack([to_batch(*scenes[i]).images for i in range(8)]))
    return network


def train(world_size: int, directory: Path, n_critic: int, micro_batches: int = 1, name: str = "global") -> None:
    """Train, and save weights and gradients as NAME_RANK.pt."""
    torch.set_num_threads(1)
    student, teacher = make_network(0), make_network(1)
    student.eval()
    for module in student.modules():
        if type(module).__name__ == "SampleDropout2d":
            module.train()
    losses = LossSum({"cross_entropy": CrossEntropy(), "pixelwise": Pixelwise(), "pairwise": Pairwise()})
    losses.setup(student.features, teacher.features)
    torch.manual_seed(2)
    adversary = Adversary(Discriminator(11, width=8), Wasserstein(), weight=0.1, n_critic=n_critic)
    optimizers = {name: lambda p: SGD(p, lr=0.001, momentum=0.9) for name in ("student", "discriminator")}
    module = RecordingDistiller(
        student, Frozen(teacher), losses, adversary, optimizers, Poly(), 4, Streets.classes, gradient_clip=1.0,
        micro_batches=micro_batches,
    )  # fmt: skip
    module.gradients = []
    data = SegmentationDataModule(
        *(HalfVoid(split, images=32) for split in ("train", "val")), Augmentation(SIZE, fill=Streets.mean), batch_size=8
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy=choose_strategy(SETTINGS.model_copy(update={"devices": world_size})),
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    result = {"weights": module.state_dict(), "gradients": module.gradients}
    torch.save(result, directory / f"{name}_{trainer.global_rank}.pt")


if __name__ == "__main__":
    arguments = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    train(*arguments, micro_batches=4 if "--micro-batches" in sys.argv else 1)
    if "--local-means" in sys.argv:
        losses = (segkd.losses.cross_entropy, segkd.losses.pixelwise, segkd.losses.pairwise)
        for module in (*losses, segkd.distillation.adversary):
            module.global_mean = compute_local_mean
        train(*arguments, name="local")
