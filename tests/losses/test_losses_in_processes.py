"""Two processes that each have half of a batch, and count unequal parts of it, have, averaged, the gradient of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.losses.test_loss_contract import NODES, gradients, made, seeded
from torch import Tensor

from segkd.losses.base import Loss
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.features import require_teacher
from segkd.losses.functional import downsample_mask
from segkd.types import IGNORE_INDEX, Batch, NetworkOutput, Step
from tests.helpers.steps import make_step

SHARES = slice(0, 2), slice(2, 4)


class OwnMean(Loss):
    """What a loss must not be: a mean over what its own process counts."""

    def forward(self, step: Step) -> Tensor:
        difference = (step.student.logits - require_teacher(step).logits.detach()).square().sum(1)
        counted = downsample_mask(step.batch.valid, (difference.shape[-2], difference.shape[-1]))
        return (difference * counted).sum() / counted.sum()


def share(step: Step, images: slice) -> Step:
    """Some images of a step, their maps leaves of their own."""

    def of(outputs: NetworkOutput) -> NetworkOutput:
        features = {name: maps.detach()[images].requires_grad_() for name, maps in outputs.features.items()}
        return outputs._replace(logits=features["kd_logits"], features=features)

    data = Batch(*(tensor[images] for tensor in step.batch))
    return Step(data, of(step.student), of(require_teacher(step)))


def step_of_four() -> Step:
    """Of the first image a part is padded, of the last most has no label."""
    step = make_step(batch=4)
    step.batch.valid[0, :, 24:] = False
    step.batch.target[3, 16:] = IGNORE_INDEX
    return step


def of_all(step: Step) -> dict[str, list[Tensor]]:
    """Each loss's gradients with respect to the student's maps."""
    found = {name: gradients(seeded(made(node), step)(step), step) for name, node in NODES.items()}
    others = {
        "own mean": OwnMean(),
        "class weights": CrossEntropy(class_weights=[0.1, 2.0, 0.3, 0.0, 0.5]),
        "hard pixels": CrossEntropy(ohem=0.1),
    }
    return {**found, **{name: gradients(loss(step), step) for name, loss in others.items()}}


def one_process(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory / 'meeting'}", rank=rank, world_size=2)
    torch.save(of_all(share(step_of_four(), SHARES[rank])), directory / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.process
def test_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(one_process, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    step = step_of_four()
    equal = {
        name: all(
            torch.allclose(torch.cat(parts) / 2, gradient, rtol=1e-4, atol=1e-8)
            for *parts, gradient in zip(first[name], second[name], whole, strict=True)
        )
        for name, whole in of_all(share(step, slice(None))).items()
    }
    exempt = {name for name, node in NODES.items() if "process_invariance" in made(node)(step).exemptions}
    assert equal == {name: name not in {*exempt, "own mean"} for name in equal}
