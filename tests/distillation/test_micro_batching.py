"""Forward passes in chunks: output and gradient of the whole batch, with the memory of a chunk."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from segkd.distillation import micro_batching
from segkd.distillation.micro_batching import forward_in_chunks
from segkd.models.base import Normalization
from segkd.models.enet import ENet
from segkd.models.profiling import count_saved_tensor_bytes
from segkd.types import Batch, NetworkOutput

IMAGES = 6


def make_network() -> ENet:
    """Make a network with BatchNorm, dropout seeded by sample, and one tensor under two names."""
    torch.manual_seed(0)
    return ENet(5, Normalization((110,) * 3, (55,) * 3))


def make_batch(images: int = IMAGES) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch(
        torch.randint(0, 256, (images, 3, 64, 64), generator=g, dtype=torch.uint8),
        torch.zeros(images, 64, 64, dtype=torch.int64),
        torch.ones(images, 64, 64, dtype=torch.bool),
        torch.randint(0, 2**62, (images,), generator=g),
    )


def freeze_batchnorm(network: ENet) -> ENet:
    """Put BatchNorm in evaluation mode, so that chunks do not matter to it."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def test_several_backward_passes_through_one_output() -> None:
    """Gradient shares take a backward pass for each term."""
    network = freeze_batchnorm(make_network().train())

    def compute_term_gradients(num_chunks: int) -> list[Tensor]:
        output = forward_in_chunks(network, make_batch(), num_chunks)
        terms = output.logits.square().mean(), output.features["encoder"].square().mean()
        return [torch.autograd.grad(t, [*network.parameters()], retain_graph=True, allow_unused=True)[0] for t in terms]

    for gradient, expected in zip(compute_term_gradients(3), compute_term_gradients(1), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def compute_loss(output: NetworkOutput) -> Tensor:
    """Return a loss that is no sum over chunks."""
    return output.logits.flatten(1).var(0).sum() + output.features["encoder"].mean(0).square().sum()


def compute_gradients(network: ENet, num_chunks: int) -> tuple[Tensor, list[Tensor]]:
    value = compute_loss(forward_in_chunks(network, make_batch(), num_chunks))
    return value, list(torch.autograd.grad(value, list(network.parameters())))


@pytest.mark.parametrize("num_chunks", [2, 3, 4, IMAGES, 99])
def test_value_and_gradient_equal_the_whole_batch(num_chunks: int) -> None:
    network = freeze_batchnorm(make_network().train())
    (whole, expected_gradients), (value, gradients) = (
        compute_gradients(network, 1),
        compute_gradients(network, num_chunks),
    )
    torch.testing.assert_close(value, whole)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_mean_of_chunk_losses_differs() -> None:
    network = freeze_batchnorm(make_network().train())
    whole, _ = compute_gradients(network, 1)
    chunk_losses = [
        compute_loss(forward_in_chunks(network, Batch(*(t[i : i + 2] for t in make_batch())), 1)) for i in (0, 2, 4)
    ]
    assert not torch.isclose(torch.stack(chunk_losses).mean(), whole, rtol=0.01)


def compute_statistics(num_chunks: int) -> list[Tensor]:
    network = make_network().train()
    compute_loss(forward_in_chunks(network, make_batch(), num_chunks)).backward()
    return list(network.buffers())


def compute_statistics_of_separate_batches() -> list[Tensor]:
    """Return the buffers after each chunk was a batch of its own."""
    network = make_network().train()
    for i in (0, 2, 4):
        forward_in_chunks(network, Batch(*(tensor[i : i + 2] for tensor in make_batch())), 1)
    return list(network.buffers())


def test_batchnorm_sees_each_chunk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compute_statistics_of_separate_batches()
    assert all(torch.equal(a, b) for a, b in zip(compute_statistics(3), expected, strict=True))

    monkeypatch.setattr(micro_batching, "_RestoreBuffers", lambda _: nullcontext())
    assert not all(torch.equal(a, b) for a, b in zip(compute_statistics(3), expected, strict=True))


class BufferedNetwork(nn.Module):
    """Layers that update and read a buffer in every forward pass, as an adapted network may have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normed = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 6, 3, padding=1))
        self.synced = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(6))  # type: ignore[no-untyped-call]
        self.instance = nn.InstanceNorm2d(6, track_running_stats=True)

    def forward(self, images: Tensor) -> NetworkOutput:
        maps = self.instance(self.synced(self.normed(images.float() / 255)))
        return NetworkOutput(maps, {"encoder": maps}, True)


def test_recomputation_sees_the_same_buffers() -> None:
    """Gradients and buffers equal those of separate forward passes."""
    chunked, separate = BufferedNetwork().train(), BufferedNetwork().train()
    compute_loss(forward_in_chunks(chunked, make_batch(), 3)).backward()
    outputs = [separate(make_batch().images[i : i + 2]) for i in (0, 2, 4)]
    logits = torch.cat([output.logits for output in outputs])
    compute_loss(NetworkOutput(logits, {"encoder": logits}, True)).backward()
    for actual, expected in zip(chunked.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(chunked.buffers(), separate.buffers(), strict=True))


def test_chunk_sizes_differ_by_at_most_one() -> None:
    sizes: list[int] = []

    def network(images: Tensor) -> NetworkOutput:
        sizes.append(len(images))
        return NetworkOutput(images.float(), {}, True)

    forward_in_chunks(network, make_batch(7), 3)
    assert sizes == [3, 2, 2]


def test_activations_are_not_saved() -> None:
    network, batch = make_network().train(), make_batch()
    whole, chunked = (
        count_saved_tensor_bytes(lambda n=n: forward_in_chunks(network, batch, n), network.parameters()) for n in (1, 3)
    )
    assert chunked < whole / 20


def test_tensor_under_two_names_stays_one() -> None:
    output = forward_in_chunks(make_network().train(), make_batch(), 3)
    assert output.features["kd_logits"] is output.logits
    assert output.logits.shape[0] == output.features["encoder"].shape[0] == IMAGES
