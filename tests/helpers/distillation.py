"""A tiny student and teacher with all phases, and a Distiller that records its updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from segkd.config.training import TrainerSettings
from segkd.distillation.adversary import Adversary, Wasserstein
from segkd.distillation.averaging import build_ema
from segkd.distillation.distiller import Distiller
from segkd.distillation.nan_guard import NanGuard
from segkd.distillation.phases import Phase
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.pairwise import Pairwise
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.discriminator import Discriminator
from segkd.models.frozen import Frozen
from segkd.models.layers import SampleDropout2d
from segkd.train.trainer import build_trainer
from segkd.types import Batch, FeatureInfo, Step

CLASSES = ("road", "car", "sky")
SETTINGS = TrainerSettings(
    max_epochs=2, devices=1, accelerator="cpu", num_nodes=1, precision="32-true", gradient_clip=None, validate_every=1,
    log_every=1, log_gradient_shares_every=None, ema=None, on_nan="stop", sync_batchnorm=False, channels_last=False,
    compile=False, micro_batches=1, teacher_bf16=False, limit_train_batches=None, limit_val_batches=None, progress=False,
)  # fmt: skip
BATCHES, EPOCHS, N_CRITIC = 3, 2, 2
LEARNING_RATES = {"student": 0.1, "discriminator": 0.01}


def compute_schedule(progress: float) -> float:
    """Return the factor of the learning rates, from a half to zero."""
    return (1 - progress) / 2


class TinyNetwork(SegmentationModel):
    """Two convolutions at 1/2, with the layers that must not change in a teacher: BatchNorm and dropout."""

    def __init__(self, width: int) -> None:
        features = {"encoder": FeatureInfo(width, 2), "kd_logits": FeatureInfo(len(CLASSES), 2)}
        super().__init__(len(CLASSES), Normalization((110.0,) * 3, (55.0,) * 3), features)
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout = SampleDropout2d(0.5)
        self.classifier = nn.Conv2d(width, len(CLASSES), 1)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.encoder(images)
        logits = self.classifier(self.dropout(features))
        return logits, {"encoder": features, "kd_logits": logits}


class Update(NamedTuple):
    """A record of one update."""

    phase: str
    repeat: int
    progress: float
    learning_rate: float
    gradient: float
    """The norm of the applied gradient."""


class RecordingDistiller(Distiller):
    """Records each update, and asserts that it leaves other phases alone."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.updates: list[Update] = []

    def run_phase(self, phase: Phase, optimizer: Any, step: Step) -> None:
        others = [p for other in self.phases if other is not phase for p in other.parameters()]
        before = [(p.detach().clone(), None if p.grad is None else p.grad.clone()) for p in others]
        own = [p.detach().clone() for p in phase.parameters()]
        super().run_phase(phase, optimizer, step)
        for parameter, (value, gradient) in zip(others, before, strict=True):
            assert torch.equal(parameter, value)
            assert parameter.requires_grad
            assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
        rate = optimizer.param_groups[0]["lr"]
        change = nn.utils.parameters_to_vector(phase.parameters()) - nn.utils.parameters_to_vector(own)
        self.updates.append(Update(phase.name, step.repeat, step.progress, rate, change.norm().item() / rate))


def make_dataloader(seed: int, count: int = BATCHES) -> DataLoader[Batch]:
    """Make a dataloader of random batches of two images."""
    g = torch.Generator().manual_seed(seed)
    batches = [
        Batch(
            torch.randint(0, 256, (2, 3, 32, 32), generator=g, dtype=torch.uint8),
            torch.randint(0, len(CLASSES), (2, 32, 32), generator=g),
            torch.ones(2, 32, 32, dtype=torch.bool),
            torch.randint(0, 2**62, (2,), generator=g),
        )
        for _ in range(count)
    ]
    return DataLoader(batches, batch_size=None)


def make_distiller(
    *, baseline: bool = False, clip: float | None = None, ema: float | None = None, guard: NanGuard | None = None
) -> RecordingDistiller:
    """Make a student with a teacher and a discriminator, or a baseline."""
    torch.manual_seed(0)
    student, teacher = TinyNetwork(8), TinyNetwork(16)
    supervised, distilled = {"labels": CrossEntropy()}, {"pixelwise": Pixelwise(), "pairwise": Pairwise()}
    losses = LossSum(supervised if baseline else {**supervised, **distilled})
    losses.setup(student.features, None if baseline else teacher.features)
    adversary = Adversary(Discriminator(len(CLASSES), width=8), Wasserstein(), weight=0.1, n_critic=N_CRITIC)
    optimizers = {name: lambda p, rate=rate: SGD(p, lr=rate) for name, rate in LEARNING_RATES.items()}
    return RecordingDistiller(
        student,
        None if baseline else Frozen(teacher),
        losses,
        None if baseline else adversary,
        optimizers,
        compute_schedule,
        total_steps=EPOCHS * BATCHES,
        classes=CLASSES,
        gradient_clip=clip,
        ema=None if ema is None else build_ema(student, ema),
        guard=guard,
    )


class Run(NamedTuple):
    """A module after its fit."""

    module: RecordingDistiller
    trainer: pl.Trainer
    checkpoint: dict[str, Any]
    teacher_hash: str
    """Before the fit."""


def fit(module: RecordingDistiller, directory: Path) -> Run:
    """Train the module with one validation batch."""
    teacher_hash = module.teacher.state_hash() if module.teacher else ""
    trainer = build_trainer(SETTINGS, directory, [])
    trainer.fit(module, make_dataloader(1), make_dataloader(2, 1))
    return Run(module, trainer, torch.load(directory / "last.ckpt", weights_only=True), teacher_hash)
