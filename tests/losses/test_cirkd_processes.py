"""CIRKD's memory in two processes. On its own, since a process that is started imports all of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from segkd.losses.cirkd_memory import CIRKDMemory
from segkd.types import Batch, FeatureInfo, NetworkOutput, Step


def remembered(images: slice) -> dict[str, torch.Tensor]:
    """The queues after two steps of which this process sees some of the images."""
    torch.manual_seed(0)
    loss = CIRKDMemory(pixel_queue=7, region_queue=3, pixels_per_class=3)
    features = {"encoder": FeatureInfo(4, 8), "kd_logits": FeatureInfo(3, 8)}
    loss.setup(features, features)
    for _ in range(2):
        maps, target = torch.randn(2, 4, 5, 6), torch.randint(0, 3, (2, 5, 6))
        outputs = NetworkOutput(maps[images, :3], {"encoder": maps[images]}, True)
        valid = torch.ones_like(target, dtype=torch.bool)
        loss(Step(Batch(maps[images], target[images], valid[images], torch.arange(2)[images]), outputs, outputs))
    return loss.state_dict()


def half(rank: int, directory: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{directory / 'meeting'}", rank=rank, world_size=2)
    torch.save(remembered(slice(rank, rank + 1)), directory / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.process
def test_processes_remember_each_others_images(tmp_path: Path) -> None:
    mp.spawn(half, (tmp_path,), nprocs=2)
    alone, part = remembered(slice(2)), remembered(slice(1))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(found[name], tensor) for name, tensor in alone.items())
    assert not torch.equal(part["pixel_memory.entries"], alone["pixel_memory.entries"])
