"""Costs of a network: multiply-accumulates, memory and time."""

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

Name = TypeVar("Name")


@torch.no_grad()
def count_macs(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Count multiply-accumulates of all convolutions, transposed ones too, and matrix products for one sample.

    Only shapes are computed, and the network stays as it is.

    Args:
        network: any network.
        *shapes: of its inputs, without the batch.
    """
    with FlopCounterMode(display=False) as counter:
        _copy_to_meta(network).eval()(*_make_meta_inputs(1, shapes))
    flops: int = counter.get_total_flops()  # two for each multiply-accumulate
    return flops // 2


def count_activation_bytes(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Count bytes per sample that a forward pass in training saves for its backward pass.

    Each storage counts once, however many tensors are views of it. Only shapes are computed, in the parameters' own type.

    Args:
        network: any network.
        *shapes: of its inputs, without the batch.
    """
    # The difference of two batches: weights are saved too, and are no activations; and BatchNorm refuses one sample of one pixel.
    return _count_batch_bytes(network, 3, shapes) - _count_batch_bytes(network, 2, shapes)


@torch.enable_grad()
def count_saved_tensor_bytes(forward: Callable[[], object], besides: Iterable[Tensor] = ()) -> int:
    """Count bytes that autograd saves of a forward pass for its backward pass, each storage once.

    Args:
        forward: the forward pass.
        besides: tensors that do not count.
    """
    saved: dict[int, Tensor] = {}

    def record(tensor: Tensor) -> Tensor:
        saved[_get_storage_id(tensor)] = tensor
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        output = forward()  # held, since a graph that is freed saves nothing
    del output
    excluded = {_get_storage_id(tensor) for tensor in besides}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in excluded)


@torch.no_grad()
def measure_peak_bytes(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Return the largest number of bytes that an inference pass holds at once for one sample, besides weights and inputs.

    Only shapes are computed, and each storage counts while it lives; an engine that fuses layers needs less.

    Args:
        network: any network.
        *shapes: of its inputs, without the batch.
    """
    twin, inputs = _copy_to_meta(network).eval(), _make_meta_inputs(1, shapes)
    with _LiveMemory((*twin.parameters(), *twin.buffers(), *inputs)) as memory:
        output = twin(*inputs)
    del output
    peak: int = memory.peak
    return peak


@torch.no_grad()
def measure_latencies(
    tasks: Mapping[Name, Callable[[], object]], repeats: int, warmup: int, device: torch.device
) -> dict[Name, list[float]]:
    """Measure the seconds of each task until `device` has finished it, `repeats` times.

    The tasks alternate, so that a machine that slows down slows all of them. A progress bar on stderr counts the rounds.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in tasks}
    rounds, console = range(warmup + repeats), Console(stderr=True)
    for i in track(rounds, "rounds", console=console, refresh_per_second=1):  # seldom: drawing takes time too
        for name, task in tasks.items():
            synchronize(device)
            start = time.perf_counter()
            task()
            synchronize(device)
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of storages that operations allocate, while they live."""

    def __init__(self, besides: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {_get_storage_id(tensor) for tensor in besides}
        self.current = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the storages that it allocates."""
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and (key := _get_storage_id(tensor)) not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(key)
                self.current += storage.nbytes()
                weakref.finalize(storage, self._release, key, storage.nbytes())
        self.peak = max(self.peak, self.current)
        return output

    def _release(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.current -= size


def _count_batch_bytes(network: nn.Module, count: int, shapes: tuple[tuple[int, ...], ...]) -> int:
    twin, inputs = _copy_to_meta(network).train(), _make_meta_inputs(count, shapes)
    return count_saved_tensor_bytes(lambda: twin(*inputs))


def _get_storage_id(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _copy_to_meta(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("meta")


def _make_meta_inputs(count: int, shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    return [torch.empty(count, *shape, device="meta") for shape in shapes]
