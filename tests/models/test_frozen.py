"""The frozen teacher: constant, not owned by its holder, and without gradients."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch import Tensor, nn

from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization
from segkd.models.frozen import Frozen
from segkd.models.pspnet import PSPNet
from segkd.types import Batch, Step

STATISTICS = Normalization((110, 110, 110), (55, 55, 55))
LOSSES = sorted(path.stem for path in (CONFIGS / "loss").glob("*.yaml"))


def build_network(width: int) -> PSPNet:
    return PSPNet(5, STATISTICS, width=width, pyramid=width, auxiliary=True, dropout=0.5)


def make_batch() -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 72), dtype=torch.uint8)
    return Batch(images, torch.randint(0, 5, (2, 64, 72)), torch.ones(2, 64, 72, dtype=torch.bool), torch.arange(2))


def test_output_and_state_never_change() -> None:
    """In training mode dropout and running statistics would change them."""
    build_network(8).train()
    teacher = Frozen(build_network(8).train())
    before, images = teacher.state_hash(), make_batch().images
    first, second = teacher(images), teacher(images)
    assert torch.equal(first.logits, second.logits)
    assert teacher.state_hash() == before
    teacher.network.train()
    assert not torch.equal(teacher(images).logits, first.logits)
    assert teacher.state_hash() != before


def test_holder_does_not_own_the_weights() -> None:
    holder = nn.Module()
    holder.teacher = Frozen(build_network(8))
    holder.train()
    assert not list(holder.parameters())
    assert not holder.state_dict()
    assert not any(module.training for module in holder.teacher.network.modules())
    holder.owned = build_network(8)  # negative control
    holder.train()
    assert holder.state_dict()
    assert holder.owned.training


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_every_loss_reach_the_student_only(name: str) -> None:
    student, teacher = build_network(8), Frozen(build_network(16))
    loss = LossSum({name: parse_spec(yaml.safe_load((CONFIGS / "loss" / f"{name}.yaml").read_text())[name]).build()})
    loss.setup(student.features, teacher.network.features)
    batch = make_batch()
    output = teacher(batch.images)
    tensors: list[Tensor] = [output.logits, *output.features.values()]
    assert not any(tensor.requires_grad or tensor.is_inference() for tensor in tensors)
    total, _ = loss(Step(batch, student(batch.images), output))
    total.backward()
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())
