"""A loop of plain PyTorch with `segkd.losses.functional` trains the same weights as a Distiller."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from segkd.distillation.distiller import Distiller
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.functional import cross_entropy_loss, pairwise_loss, pixelwise_loss
from segkd.losses.pairwise import Pairwise
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.weighted_sum import LossSum
from segkd.models.frozen import Frozen
from segkd.types import IGNORE_INDEX, Batch
from tests.helpers.distillation import CLASSES, TinyNetwork, make_dataloader

STEPS = 3


def make_networks() -> tuple[TinyNetwork, TinyNetwork]:
    """Make a student and a teacher; without dropout, whose masks a run draws by sample."""
    torch.manual_seed(0)
    networks = TinyNetwork(8), TinyNetwork(16)
    for network in networks:
        network.dropout = nn.Identity()
    return networks


def make_batches() -> DataLoader[Batch]:
    """Make batches with padding and unlabeled pixels."""
    batches = list(make_dataloader(1, STEPS))
    for batch in batches:
        batch.target[:, 20:26] = IGNORE_INDEX
        batch.valid[0, :, 24:] = False
        batch.target[~batch.valid] = IGNORE_INDEX
    return DataLoader(batches, batch_size=None)


def make_optimizer(parameters: Iterator[nn.Parameter] | list[nn.Parameter]) -> SGD:
    return SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)


def train_with_distiller() -> dict[str, Tensor]:
    student, teacher = make_networks()
    losses = LossSum({"cross_entropy": CrossEntropy(), "pixelwise": Pixelwise(), "pairwise": Pairwise()})
    losses.setup(student.features, teacher.features)
    distiller = Distiller(
        student, Frozen(teacher), losses, None, {"student": make_optimizer}, lambda _: 1.0, STEPS, CLASSES
    )
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(distiller, make_batches())
    return student.state_dict()


def train_with_loop(temperature: float = 1.0) -> dict[str, Tensor]:
    student, teacher = make_networks()
    teacher.eval()
    optimizer = make_optimizer(student.parameters())
    for images, target, valid, _ in make_batches():
        logits, features, _ = student(images)
        with torch.no_grad():
            teacher_logits, teacher_features, _ = teacher(images)
        enlarged = F.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=True)
        loss = cross_entropy_loss(enlarged, target)
        loss = loss + 10 / 3 * pixelwise_loss(logits, teacher_logits, valid, temperature)
        loss = loss + 10 * pairwise_loss(features["encoder"], teacher_features["encoder"], valid)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student.state_dict()


@pytest.mark.filterwarnings("ignore")
def test_weights_are_those_of_a_distiller() -> None:
    weights, start = train_with_distiller(), deepcopy(make_networks()[0].state_dict())
    assert all(not torch.equal(weights[key], start[key]) for key in weights)
    loop = train_with_loop()
    assert {key: torch.equal(loop[key], weights[key]) for key in weights} == dict.fromkeys(weights, True)
    other = train_with_loop(temperature=1.1)
    assert any(not torch.equal(other[key], weights[key]) for key in weights)
