"""Before the first step: what is about to happen, and whether the teacher knows more than nothing."""

from __future__ import annotations

import sys
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from segkd.data.datamodule import SegmentationData
from segkd.distiller import Distiller
from segkd.errors import UserError
from segkd.evaluation import confusion_matrix
from segkd.metrics import Scores, constant_class_miou
from segkd.models.base import SegmentationModel, parameters_of

SLICE = 16
"""Validation images, evenly spread, on which the teacher is tried."""


def preflight(
    distiller: Distiller,
    data: SegmentationData,
    crop_size: tuple[int, int],
    mode: Literal["stop", "warn", "off"],
    device: torch.device,
) -> None:
    """Print networks, taps with their shapes, losses and projectors; try the teacher on a fixed slice of validation.

    Raises:
        UserError: with mode `stop`, where the teacher's mIoU is not above that of the best constant class.
    """
    if mode == "off":
        return
    console = Console(stderr=True)
    teacher = distiller.teacher.network if distiller.teacher is not None else None
    console.print(_networks(distiller, teacher, crop_size))
    console.print(_objective(distiller))
    if teacher is None:
        return
    matrix = confusion_matrix(teacher, data.val.source, device=device, limit=SLICE)
    score, constant = Scores.of(matrix, len(distiller.classes)).miou, constant_class_miou(matrix)
    images = min(SLICE, len(data.val))
    verdict = (
        f"teacher: mIoU {100 * score:.2f} on {images} images of {data.val.source.split}; "
        f"the best constant class has {100 * constant:.2f}"
    )
    if score > constant:
        console.print(verdict)
    elif mode == "stop":
        raise UserError(
            f"{verdict}. It has nothing to teach here: check its weights and classes (preflight=warn goes on all the same)"
        )
    else:
        print(f"segkd: {verdict}; going on, as preflight=warn says", file=sys.stderr)


def _networks(distiller: Distiller, teacher: SegmentationModel | None, crop_size: tuple[int, int]) -> Table:
    table = Table("network", "parameters", "tap", f"shape for a crop of {crop_size[0]}×{crop_size[1]}")
    for role, network in (("student", distiller.student), ("teacher", teacher)):
        if network is None:
            continue
        was_training = network.training
        with torch.no_grad():
            outputs = network.eval()(torch.zeros(1, 3, *crop_size))
        network.train(was_training)
        size = f"{parameters_of(network):,}"
        for name, tap in {"logits": outputs.logits, **outputs.taps}.items():
            table.add_row(role, size, name, "×".join(map(str, tap.shape[1:])))
            role = size = ""
    if distiller.adversary is not None:
        table.add_row("discriminator", f"{parameters_of(distiller.adversary):,}", "", "")
    return table


def _objective(distiller: Distiller) -> Table:
    table = Table("loss", "weight", "tap", "projector parameters")
    for name, loss in distiller.losses.named():
        table.add_row(
            name,
            f"{loss.weight:.4g}",
            getattr(loss, "tap", "logits"),
            f"{parameters_of(loss):,}" if parameters_of(loss) else "none",
        )
    if distiller.adversary is not None:
        table.add_row("holistic", f"{distiller.adversary.weight:.4g}", distiller.adversary.tap, "none")
    return table
