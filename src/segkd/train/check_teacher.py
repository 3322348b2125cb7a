"""Before the first step: what is about to happen, and whether the teacher knows more than nothing."""

from __future__ import annotations

import sys
from functools import partial
from typing import Literal

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import nn

from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores, constant_class_miou
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.profiling import count_activation_bytes, count_macs, count_saved_tensor_bytes
from segkd.types import Batch, NetworkOutput, Step

NUM_IMAGES = 16
"""Validation images, evenly spread, on which the teacher is tried."""
COSTS = ("parameters", "MACs", "bytes of parameters", "bytes of activations")


def check_teacher(
    distiller: Distiller,
    data: SegmentationDataModule,
    crop_size: tuple[int, int],
    mode: Literal["stop", "warn", "off"],
    device: torch.device,
    dry_run: bool = False,
) -> None:
    """Print networks, features with their shapes, losses and projectors; try the teacher on a fixed slice of validation.

    Mode `off` leaves all of it out, and in a dry run only the teacher's trial. A dry run also prints what the networks cost.

    Raises:
        UserError: with mode `stop`, where the teacher's mIoU is not above that of the best constant class.
    """
    if mode == "off" and not dry_run:
        return
    console = Console(stderr=not dry_run)
    teacher = distiller.teacher.network if distiller.teacher is not None else None
    console.print(_networks(distiller, teacher, crop_size))
    console.print(_objective(distiller))
    if dry_run:
        console.print(_costs(distiller, teacher, crop_size))
    if teacher is None or mode == "off":
        return
    tried = partial(compute_confusion_matrix, teacher, data.val.source, device=device, limit=NUM_IMAGES)
    matrix = tried()
    score, constant = Scores.of(matrix, len(distiller.classes)).miou, constant_class_miou(matrix)
    images = min(NUM_IMAGES, len(data.val))
    verdict = (
        f"teacher: mIoU {100 * score:.2f} on {images} images of {data.val.source.split}; "
        f"the best constant class has {100 * constant:.2f}"
    )
    if distiller.teacher is not None and distiller.teacher.bf16:
        with distiller.teacher.precision(device):
            half = Scores.of(tried(), len(distiller.classes)).miou
        verdict += f"; in bfloat16 the teacher has {100 * half:.2f}"
    if score > constant:
        console.print(verdict)
    elif mode == "stop":
        raise UserError(
            f"{verdict}. It has nothing to teach here: check its weights and classes (check_teacher=warn goes on all the same)"
        )
    else:
        print(f"segkd: {verdict}; going on, as check_teacher=warn says", file=sys.stderr)


def _networks(distiller: Distiller, teacher: SegmentationModel | None, crop_size: tuple[int, int]) -> Table:
    table = Table("network", "parameters", "feature", f"shape for a crop of {crop_size[0]}×{crop_size[1]}")
    for role, network in (("student", distiller.student), ("teacher", teacher)):
        if network is None:
            continue
        outputs = _answer(network, crop_size)
        size = f"{count_parameters(network):,}"
        for name, feature in {"logits": outputs.logits, **outputs.features}.items():
            table.add_row(role, size, name, "×".join(map(str, feature.shape[1:])))
            role = size = ""
    if distiller.adversary is not None:
        table.add_row("discriminator", f"{count_parameters(distiller.adversary):,}", "", "")
    return table


def _objective(distiller: Distiller) -> Table:
    table = Table("loss", "weight", "feature", "projector parameters")
    for name, loss in distiller.losses.named():
        table.add_row(
            name,
            f"{loss.weight:.4g}",
            getattr(loss, "feature", "logits"),
            f"{count_parameters(loss):,}" if count_parameters(loss) else "none",
        )
    if distiller.adversary is not None:
        table.add_row("adversarial", f"{distiller.adversary.weight:.4g}", distiller.adversary.feature, "none")
    return table


def _costs(distiller: Distiller, teacher: SegmentationModel | None, crop_size: tuple[int, int]) -> Table:
    """What each network takes; of the teacher nothing is kept, since no gradient goes through it."""
    image = (3, *crop_size)
    players: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {"student": (distiller.student, (image,))}
    if teacher is not None:
        players["teacher"] = (teacher, (image,))
    if (adversary := distiller.adversary) is not None:
        maps = _answer(distiller.student, crop_size).features[adversary.feature]
        players["discriminator"] = (adversary.discriminator, (tuple(maps.shape[1:]), image))
    title = f"per image of the crop of {crop_size[0]}×{crop_size[1]}, float32"
    caption = "activations: what a pass in training keeps for its backward pass"
    table = Table("network", *(Column(name, justify="right") for name in COSTS), title=title, caption=caption)
    for role, (network, shapes) in players.items():
        kept = 0 if network is teacher else count_activation_bytes(network, *shapes)
        _add_costs(table, role, network, f"{count_macs(network, *shapes):,}", kept)
    _add_costs(table, "losses", distiller.losses, "", _kept_by_losses(distiller, teacher, crop_size))
    return table


def _add_costs(table: Table, role: str, part: nn.Module, macs: str, kept: int) -> None:
    size = sum(p.numel() * p.element_size() for p in part.parameters())
    table.add_row(role, f"{count_parameters(part):,}", macs, f"{size:,}", f"{kept:,}")


def _kept_by_losses(distiller: Distiller, teacher: SegmentationModel | None, crop_size: tuple[int, int]) -> int:
    """For a black image of one class, besides the maps that the networks hand over."""
    ours, theirs = _answer(distiller.student, crop_size), None if teacher is None else _answer(teacher, crop_size)
    maps = [ours.logits, *ours.features.values()]
    for tensor in maps:
        tensor.requires_grad_()
    if theirs is not None:
        maps += [theirs.logits, *theirs.features.values()]
    shape = (1, *crop_size)
    image = torch.zeros(1, 3, *crop_size, dtype=torch.uint8)
    batch = Batch(
        image, torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool), torch.zeros(1).long()
    )
    distiller.losses.eval()  # a loss with a memory would remember this
    kept = count_saved_tensor_bytes(
        lambda: distiller.losses(Step(batch, ours, theirs, progress=1.0)), [*maps, *distiller.losses.parameters()]
    )
    distiller.losses.train()
    return kept


def _answer(network: SegmentationModel, crop_size: tuple[int, int]) -> NetworkOutput:
    was_training = network.training
    with torch.no_grad():
        outputs: NetworkOutput = network.eval()(torch.zeros(1, 3, *crop_size))
    network.train(was_training)
    return outputs
