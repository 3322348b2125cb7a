"""The teacher answers and nothing moves it."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch import Tensor, nn

from segkd.config.instantiate import build_spec
from segkd.config.paths import CONFIGS
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization
from segkd.models.frozen import Frozen
from segkd.models.pspnet import PSPNet
from segkd.types import Batch, Step

STATISTICS = Normalization((110, 110, 110), (55, 55, 55))
LOSSES = sorted(path.stem for path in (CONFIGS / "loss").glob("*.yaml"))


def network(width: int) -> PSPNet:
    return PSPNet(5, STATISTICS, width=width, pyramid=width, auxiliary=True, dropout=0.5)


def batch() -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 72), dtype=torch.uint8)
    return Batch(images, torch.randint(0, 5, (2, 64, 72)), torch.ones(2, 64, 72, dtype=torch.bool), torch.arange(2))


def test_it_answers_the_same_whatever_is_asked() -> None:
    """In training its dropout would draw and its running statistics move."""
    network(8).train()
    teacher = Frozen(network(8).train())
    before, images = teacher.state_hash(), batch().images
    first, second = teacher(images), teacher(images)
    assert torch.equal(first.logits, second.logits)
    assert teacher.state_hash() == before
    teacher.network.train()
    assert not torch.equal(teacher(images).logits, first.logits)
    assert teacher.state_hash() != before


def test_no_holder_owns_it() -> None:
    holder = nn.Module()
    holder.teacher = Frozen(network(8))
    holder.train()
    assert not list(holder.parameters())
    assert not holder.state_dict()
    assert not any(module.training for module in holder.teacher.network.modules())
    holder.owned = network(8)  # what would happen otherwise
    holder.train()
    assert holder.state_dict()
    assert holder.owned.training


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_runs_back_to_the_student_alone(name: str) -> None:
    student, teacher = network(8), Frozen(network(16))
    loss = LossSum({name: build_spec(yaml.safe_load((CONFIGS / "loss" / f"{name}.yaml").read_text())[name])})
    loss.setup(student.features, teacher.network.features)
    served = batch()
    answer = teacher(served.images)
    tensors: list[Tensor] = [answer.logits, *answer.features.values()]
    assert not any(tensor.requires_grad or tensor.is_inference() for tensor in tensors)
    total, _ = loss(Step(served, student(served.images), answer))
    total.backward()
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())
