"""Several processes of a training, simulated by threads that exchange tensors where processes would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from segkd.check_part.findings import ContractFault

T = TypeVar("T")

_TIMEOUT = 60  # seconds, far more than a thread computes between two reductions
_REDUCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    dist.ReduceOp.SUM: lambda parts: parts.sum(0),
    dist.ReduceOp.AVG: lambda parts: parts.mean(0),
    dist.ReduceOp.PRODUCT: lambda parts: parts.prod(0),
    dist.ReduceOp.MAX: lambda parts: parts.amax(0),
    dist.ReduceOp.MIN: lambda parts: parts.amin(0),
}
_NO_GROUP = "Default process group has not been initialized"  # PyTorch's message


def run_as_processes(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Call each function as if in a process of its own, and return their results.

    Inside, `torch.distributed` has as many processes as there are functions. Of its collective operations there are all_reduce,
    all_gather, all_gather_into_tensor, broadcast and barrier.

    Raises:
        ContractFault: the functions do not make the same reductions, or one calls another collective operation.
        Exception: what a function raises.
    """
    processes = _Processes(len(functions))
    results: list[Any] = [None] * len(functions)
    errors: list[Exception] = []

    def run(rank: int) -> None:
        processes.local.rank = rank
        try:
            results[rank] = functions[rank]()
        except threading.BrokenBarrierError:
            pass  # another thread has failed, or does not come
        except Exception as error:
            errors.append(error)
            processes.barrier.abort()
        finally:
            processes.end()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(functions))]
    with mock.patch.multiple(dist, **processes.get_functions()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for error in errors:
        if _NO_GROUP in str(error):
            raise ContractFault(
                "it calls a function of torch.distributed that is not simulated here; use those of segkd.losses.distributed"
            ) from error
        raise error
    if processes.barrier.broken:
        raise ContractFault(
            "one of two processes makes a reduction that the other does not make, so a training would hang; "
            "make the same reductions whatever the data"
        )
    return results


class _Processes:
    """The functions of `torch.distributed`, with a thread in place of a process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=_TIMEOUT)
        self.local = threading.local()
        self.slots: list[Tensor] = [torch.empty(0)] * count
        self.lock = threading.Lock()
        self.calls = [0] * count
        self.has_ended = [False] * count

    def get_functions(self) -> dict[str, Any]:
        """Return what replaces the functions of `torch.distributed`, by name."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "get_world_size": lambda *_, **__: self.count,
            "get_rank": lambda *_, **__: self.local.rank,
            "all_reduce": self.all_reduce,
            "all_gather": self.all_gather,
            "all_gather_into_tensor": self.all_gather_into_tensor,
            "broadcast": self.broadcast,
            "barrier": lambda *_, **__: self.gather(torch.empty(0)) and None,
        }

    def end(self) -> None:
        """Say that this thread makes no more reductions."""
        with self.lock:
            self.has_ended[self.local.rank] = True
            self._check_counts()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all threads."""
        with self.lock:
            self.calls[self.local.rank] += 1
            self._check_counts()
        self.slots[self.local.rank] = tensor.detach().clone()
        self.barrier.wait()
        gathered = list(self.slots)
        self.barrier.wait()  # before one of them writes again
        return gathered

    def _check_counts(self) -> None:
        """Wake the threads that would wait forever, since another ended after fewer reductions."""
        most = max(self.calls)
        if any(ended and calls < most for ended, calls in zip(self.has_ended, self.calls, strict=True)):
            self.barrier.abort()

    def all_reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM, *_: Any, **__: Any) -> _Done:
        """Reduce a tensor in place."""
        tensor.data.copy_(_REDUCTIONS[op](torch.stack(self.gather(tensor))))
        return _Done()

    def all_gather(self, tensors: list[Tensor], tensor: Tensor, *_: Any, **__: Any) -> _Done:
        """Copy the tensors of all threads into a list."""
        for target, source in zip(tensors, self.gather(tensor), strict=True):
            target.copy_(source)
        return _Done()

    def all_gather_into_tensor(self, output: Tensor, tensor: Tensor, *_: Any, **__: Any) -> _Done:
        """Copy the tensors of all threads into one."""
        output.copy_(torch.stack(self.gather(tensor)).view_as(output))
        return _Done()

    def broadcast(self, tensor: Tensor, src: int = 0, *_: Any, **__: Any) -> _Done:
        """Copy the tensor of one thread to all."""
        tensor.data.copy_(self.gather(tensor)[src])
        return _Done()


class _Done:
    """The handle of an operation that is complete."""

    def wait(self) -> None:
        """Return at once."""
