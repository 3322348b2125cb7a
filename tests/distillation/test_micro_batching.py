"""A batch that goes through a network in parts: the answer and the gradient of the whole, for the memory of a part."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from segkd.distillation import micro_batching as micro_batches
from segkd.distillation.micro_batching import forward_in_chunks
from segkd.models.base import Normalization
from segkd.models.enet import ENet
from segkd.models.profiling import count_saved_tensor_bytes
from segkd.types import Batch, NetworkOutput

SIX = 6


def network() -> ENet:
    """With BatchNorm, dropout by the sample, and one tensor under two names."""
    torch.manual_seed(0)
    return ENet(5, Normalization((110,) * 3, (55,) * 3))


def batch(images: int = SIX) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch(
        torch.randint(0, 256, (images, 3, 64, 64), generator=g, dtype=torch.uint8),
        torch.zeros(images, 64, 64, dtype=torch.int64),
        torch.ones(images, 64, 64, dtype=torch.bool),
        torch.randint(0, 2**62, (images,), generator=g),
    )


def standing(made: ENet) -> ENet:
    """BatchNorm stands still, so that it does not see that there are parts; dropout does not."""
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    return made


def test_each_term_may_look_back_by_itself() -> None:
    """As the shares of the terms in the gradient do: several backward passes through one answer."""
    made = standing(network().train())

    def of_terms(parts: int) -> list[Tensor]:
        said = forward_in_chunks(made, batch(), parts)
        terms = said.logits.square().mean(), said.features["encoder"].square().mean()
        return [torch.autograd.grad(t, [*made.parameters()], retain_graph=True, allow_unused=True)[0] for t in terms]

    for ours, theirs in zip(of_terms(3), of_terms(1), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def loss(said: NetworkOutput) -> Tensor:
    """Of the batch as a whole, and of nothing less."""
    return said.logits.flatten(1).var(0).sum() + said.features["encoder"].mean(0).square().sum()


def gradients(made: ENet, parts: int) -> tuple[Tensor, list[Tensor]]:
    value = loss(forward_in_chunks(made, batch(), parts))
    return value, list(torch.autograd.grad(value, list(made.parameters())))


@pytest.mark.parametrize("parts", [2, 3, 4, SIX, 99])
def test_value_and_gradient_are_those_of_the_whole(parts: int) -> None:
    made = standing(network().train())
    (whole, expected), (value, found) = gradients(made, 1), gradients(made, parts)
    torch.testing.assert_close(value, whole)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_adding_up_the_parts_would_not_give_it() -> None:
    made = standing(network().train())
    whole, _ = gradients(made, 1)
    of_parts = [loss(forward_in_chunks(made, Batch(*(t[i : i + 2] for t in batch())), 1)) for i in (0, 2, 4)]
    assert not torch.isclose(torch.stack(of_parts).mean(), whole, rtol=0.01)


def statistics_after(parts: int) -> list[Tensor]:
    made = network().train()
    loss(forward_in_chunks(made, batch(), parts)).backward()
    return list(made.buffers())


def one_after_the_other() -> list[Tensor]:
    """What a network has seen that has been given the parts as batches of their own."""
    made = network().train()
    for i in (0, 2, 4):
        forward_in_chunks(made, Batch(*(tensor[i : i + 2] for tensor in batch())), 1)
    return list(made.buffers())


def test_batchnorm_sees_each_part_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one_after_the_other()
    assert all(torch.equal(a, b) for a, b in zip(statistics_after(3), expected, strict=True))

    monkeypatch.setattr(micro_batches, "_RestoreBuffers", lambda _: nullcontext())
    assert not all(torch.equal(a, b) for a, b in zip(statistics_after(3), expected, strict=True))


class Others(nn.Module):
    """What an adapter may bring: layers that move a buffer in every forward pass, and read it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normed = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 6, 3, padding=1))
        self.synced = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(6))  # type: ignore[no-untyped-call]
        self.instance = nn.InstanceNorm2d(6, track_running_stats=True)

    def forward(self, images: Tensor) -> NetworkOutput:
        maps = self.instance(self.synced(self.normed(images.float() / 255)))
        return NetworkOutput(maps, {"encoder": maps}, True)


def test_other_layers_with_buffers_look_twice_at_the_same() -> None:
    """As if each part were given by itself."""
    parts, by_itself = Others().train(), Others().train()
    loss(forward_in_chunks(parts, batch(), 3)).backward()
    said = [by_itself(batch().images[i : i + 2]) for i in (0, 2, 4)]
    joined = torch.cat([one.logits for one in said])
    loss(NetworkOutput(joined, {"encoder": joined}, True)).backward()
    for ours, theirs in zip(parts.parameters(), by_itself.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(parts.buffers(), by_itself.buffers(), strict=True))


def test_parts_are_as_alike_as_can_be() -> None:
    seen: list[int] = []

    def network(images: Tensor) -> NetworkOutput:
        seen.append(len(images))
        return NetworkOutput(images.float(), {}, True)

    forward_in_chunks(network, batch(7), 3)
    assert seen == [3, 2, 2]


def test_it_keeps_the_answer_alone_until_it_looks_again() -> None:
    made, given = network().train(), batch()
    whole, parts = (
        count_saved_tensor_bytes(lambda n=n: forward_in_chunks(made, given, n), made.parameters()) for n in (1, 3)
    )
    assert parts < whole / 20


def test_one_tensor_stays_one() -> None:
    said = forward_in_chunks(network().train(), batch(), 3)
    assert said.features["kd_logits"] is said.logits
    assert said.logits.shape[0] == said.features["encoder"].shape[0] == SIX
