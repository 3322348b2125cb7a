"""What a network costs: parameters, multiply-accumulates, time."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from segkd.models.base import SegmentationModel


@torch.no_grad()
def multiply_accumulates(network: SegmentationModel, size: tuple[int, int]) -> int:
    """Multiply-accumulates of all convolutions, transposed ones too, and matrix products for one image of H W.

    Counted on shapes alone: nothing is computed, and the network stays as it is.
    """
    shapes = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, *size, device="meta"))
    operations: int = counter.get_total_flops()  # two for each
    return operations // 2


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
