"""What a network costs: parameters, multiply-accumulates, memory, time."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segkd.models.base import SegmentationModel

Name = TypeVar("Name")


def count_graph_macs(network: SegmentationModel, size: tuple[int, int]) -> int:
    """Multiply-accumulates of all convolutions, transposed ones too, and matrix products for one image of H W.

    Counted on shapes alone: nothing is computed, and the network stays as it is.
    """
    return count_macs(network, (3, *size))


@torch.no_grad()
def count_macs(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Multiply-accumulates of any network for one sample of inputs of these shapes, counted likewise."""
    with FlopCounterMode(display=False) as counter:
        _without_values(network).eval()(*_samples(1, shapes))
    counted: int = counter.get_total_flops()  # two for each
    return counted // 2


def count_activation_bytes(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Bytes that a forward pass in training keeps for its backward pass, for each sample of inputs of these shapes.

    Each storage counts once, however many tensors are views of it. Counted on shapes alone, in the parameters' own type.
    """
    # What a third sample adds: weights are kept too, and are no activations; and BatchNorm refuses one sample of one pixel.
    return _kept(network, 3, shapes) - _kept(network, 2, shapes)


@torch.enable_grad()
def count_saved_tensor_bytes(forward: Callable[[], object], besides: Iterable[Tensor] = ()) -> int:
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


@torch.no_grad()
def measure_peak_bytes(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """The most bytes that a forward pass in evaluation holds at once, beside weights and inputs, for one sample of these shapes.

    Counted on shapes alone, each storage from its making to its end; an engine that fuses layers needs less.
    """
    copied, samples = _without_values(network).eval(), _samples(1, shapes)
    with _LiveMemory((*copied.parameters(), *copied.buffers(), *samples)) as alive:
        answer = copied(*samples)
    del answer
    most: int = alive.most
    return most


class _LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations make, while they live."""

    def __init__(self, besides: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {_storage(tensor) for tensor in besides}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (key := _storage(tensor)) not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _kept(network: nn.Module, count: int, shapes: tuple[tuple[int, ...], ...]) -> int:
    copied, samples = _without_values(network).train(), _samples(count, shapes)
    return count_saved_tensor_bytes(lambda: copied(*samples))


def _storage(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _without_values(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("meta")


def _samples(count: int, shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    return [torch.empty(count, *shape, device="meta") for shape in shapes]


@torch.no_grad()
def measure_latencies(
    tasks: Mapping[Name, Callable[[], object]], repeats: int, warmup: int, device: torch.device
) -> dict[Name, list[float]]:
    """Seconds that each task takes, `repeats` times, to the end of what it has `device` do.

    The tasks take turns, so that a machine that slows down slows all of them. A bar on stderr counts the turns.
    """
    taken: dict[Name, list[float]] = {name: [] for name in tasks}
    turns, console = range(warmup + repeats), Console(stderr=True)
    for turn in track(turns, "turns", console=console, refresh_per_second=1):  # seldom: drawing takes time too
        for name, task in tasks.items():
            synchronize(device)
            started = time.perf_counter()
            task()
            synchronize(device)
            if turn >= warmup:
                taken[name].append(time.perf_counter() - started)
    return taken


def synchronize(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
