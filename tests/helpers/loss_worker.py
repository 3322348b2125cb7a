"""One of two processes that each compute losses on half of a batch; started by test_processes.py.

A started process imports this module only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segkd.check_part.loss_case import LossCase
from segkd.check_part.steps import compute_gradients, make_step, select_images
from segkd.config.instantiate import parse_spec
from segkd.losses.base import Loss
from segkd.losses.cirkd_memory import CIRKDMemory
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.distributed import global_mean
from segkd.losses.features import require_teacher
from segkd.losses.tensors import downsample_mask
from segkd.types import IGNORE_INDEX, Batch, FeatureInfo, NetworkOutput, Step
from tests.helpers.losses import SPECS

VALUES = torch.tensor([1.0, 2.0, 4.0, 8.0])
"""The first process has one of them, the second the other three."""


class LocalMean(Loss):
    """The negative control: a mean over the valid positions of its own process."""

    def forward(self, step: Step) -> Tensor:
        difference = (step.student.logits - require_teacher(step).logits.detach()).square().sum(1)
        valid = downsample_mask(step.batch.valid, (difference.shape[-2], difference.shape[-1]))
        return (difference * valid).sum() / valid.sum()


def run_process(rank: int, directory: Path) -> None:
    """Compute everything on this process's part, and save it as RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory / 'rendezvous'}", rank=rank, world_size=2)
    images = slice(2 * rank, 2 * rank + 2)
    results = {
        "mean": compute_mean_gradients(VALUES[:1] if rank == 0 else VALUES[1:]),
        "gradients": compute_loss_gradients(images),
        "memory": fill_memory(slice(rank, rank + 1)),
    }
    torch.save(results, directory / f"{rank}.pt")
    dist.destroy_process_group()


def compute_mean_gradients(values: Tensor) -> Tensor:
    """Return the gradients of the mean of (w·x)² at w = 3 by global and local mean, and gradient and value of no values."""
    w = torch.tensor(3.0, requires_grad=True)
    empty = global_mean(w * 0, torch.tensor(0))
    means = (
        global_mean((w * values).square().sum(), torch.tensor(len(values))),
        (w * values).square().sum() / len(values),
        empty,
    )
    return torch.stack([*(torch.autograd.grad(mean, w)[0] for mean in means), empty.detach()])


def compute_loss_gradients(images: slice) -> dict[str, list[Tensor]]:
    """Return each loss's gradients of the student's maps, on some images of a batch of four.

    The first image is partly padded, the last mostly void.
    """
    step = make_step(batch=4)
    step.batch.valid[0, :, 24:] = False
    step.batch.target[3, 16:] = IGNORE_INDEX
    step = select_images(step, images)
    losses: dict[str, Loss] = {name: LossCase(parse_spec(spec).build).make_loss(step) for name, spec in SPECS.items()}
    losses |= {
        "local mean": LocalMean(),
        "class weights": CrossEntropy(class_weights=[0.1, 2.0, 0.3, 0.0, 0.5]),
        "hard pixels": CrossEntropy(ohem=0.1),
    }
    return {name: compute_gradients(loss(step), step) for name, loss in losses.items()}


def fill_memory(images: slice) -> dict[str, Any]:
    """Return the state of CIRKD's queues after two steps with some of the images."""
    torch.manual_seed(0)
    loss = CIRKDMemory(pixel_queue=7, region_queue=3, pixels_per_class=3)
    features = {"encoder": FeatureInfo(4, 8), "kd_logits": FeatureInfo(3, 8)}
    loss.setup(features, features)
    for _ in range(2):
        maps, target = torch.randn(2, 4, 5, 6), torch.randint(0, 3, (2, 5, 6))
        output = NetworkOutput(maps[images, :3], {"encoder": maps[images]}, True)
        valid = torch.ones_like(target, dtype=torch.bool)
        loss(Step(Batch(maps[images], target[images], valid[images], torch.arange(2)[images]), output, output))
    return loss.state_dict()
