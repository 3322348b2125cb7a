"""What a network costs: parameters, multiply-accumulates, memory, time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from segkd.models.base import SegmentationModel


def multiply_accumulates(network: SegmentationModel, size: tuple[int, int]) -> int:
    """Multiply-accumulates of all convolutions, transposed ones too, and matrix products for one image of H W.

    Counted on shapes alone: nothing is computed, and the network stays as it is.
    """
    return operations(network, (3, *size))


@torch.no_grad()
def operations(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Multiply-accumulates of any network for one sample of inputs of these shapes, counted likewise."""
    with FlopCounterMode(display=False) as counter:
        _without_values(network).eval()(*_samples(1, shapes))
    counted: int = counter.get_total_flops()  # two for each
    return counted // 2


def activation_bytes(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Bytes that a forward pass in training keeps for its backward pass, for each sample of inputs of these shapes.

    Each storage counts once, however many tensors are views of it. Counted on shapes alone, in the parameters' own type.
    """
    # What a third sample adds: weights are kept too, and are no activations; and BatchNorm refuses one sample of one pixel.
    return _kept(network, 3, shapes) - _kept(network, 2, shapes)


@torch.enable_grad()
def kept_bytes(forward: Callable[[], object], besides: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps of a forward pass for its backward pass, each storage once; some tensors may be left out."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_storage(tensor)] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = forward()  # held, since a graph that is gone keeps nothing
    del answer
    left_out = {_storage(tensor) for tensor in besides}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in left_out)


def _kept(network: nn.Module, count: int, shapes: tuple[tuple[int, ...], ...]) -> int:
    copied, samples = _without_values(network).train(), _samples(count, shapes)
    return kept_bytes(lambda: copied(*samples))


def _storage(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _without_values(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("meta")


def _samples(count: int, shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    return [torch.empty(count, *shape, device="meta") for shape in shapes]


@torch.no_grad()
def latencies(
    networks: Mapping[str, SegmentationModel], size: tuple[int, int], repeats: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds that each network takes from one RGB image to class scores at the image's size, `repeats` times.

    The networks take turns, so that a machine that slows down slows all of them. They are left on `device`, evaluating.
    """
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, device=device)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        network.to(device).eval()
    for turn in range(warmup + repeats):
        for name, network in networks.items():
            _wait(device)
            started = time.perf_counter()
            network(image).at(size)
            _wait(device)
            if turn >= warmup:
                taken[name].append(time.perf_counter() - started)
    return taken


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
