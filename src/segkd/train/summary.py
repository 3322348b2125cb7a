"""Print what a run trains: networks, features, losses, and, in a dry run, what they cost."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import nn

from segkd.builders.datamodule import get_crop_size
from segkd.config.training import TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.distillation.distiller import Distiller
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.profiling import count_activation_bytes, count_macs, count_saved_tensor_bytes
from segkd.types import Batch, NetworkOutput, Step

COSTS = ("parameters", "MACs", "bytes of parameters", "bytes of activations")


def print_summary(settings: TrainSettings, distiller: Distiller, dataset: SegmentationDataset) -> None:
    """Print tables of networks and losses to stderr, or, in a dry run, to stdout and with the costs.

    Skip them with `check_teacher=off`, unless in a dry run.
    """
    if settings.check_teacher == "off" and not settings.dry_run:
        return
    crop_size = get_crop_size(settings, dataset)
    console = Console(stderr=not settings.dry_run, markup=False, emoji=False)
    console.print(_tabulate_networks(distiller, crop_size))
    console.print(_tabulate_losses(distiller))
    if settings.dry_run:
        console.print(_tabulate_costs(distiller, crop_size))


def _tabulate_networks(distiller: Distiller, crop_size: tuple[int, int]) -> Table:
    table = Table("network", "parameters", "feature", f"shape for a crop of {crop_size[0]}×{crop_size[1]}")
    for role, network in (("student", distiller.student), ("teacher", _get_teacher(distiller))):
        if network is None:
            continue
        output = _forward_blank_image(network, crop_size)
        size = f"{count_parameters(network):,}"
        for name, feature in {"logits": output.logits, **output.features}.items():
            table.add_row(role, size, name, "×".join(map(str, feature.shape[1:])))
            role = size = ""
    if distiller.adversary is not None:
        table.add_row("discriminator", f"{count_parameters(distiller.adversary):,}", "", "")
    return table


def _tabulate_losses(distiller: Distiller) -> Table:
    table = Table("loss", "weight", "feature", "projector parameters")
    for name, loss in distiller.losses.named_losses():
        num_parameters = count_parameters(loss)
        projector = f"{num_parameters:,}" if num_parameters else "none"
        feature = getattr(loss, "feature", "–" if loss.needs_teacher else "logits")
        table.add_row(name, f"{loss.weight:.4g}", feature, projector)
    if (adversary := distiller.adversary) is not None:
        table.add_row("adversarial", f"{adversary.weight:.4g}", adversary.feature, "none")
    return table


def _tabulate_costs(distiller: Distiller, crop_size: tuple[int, int]) -> Table:
    """Return what each network needs; of the teacher no activations are kept, since no gradient flows through it."""
    image, teacher = (3, *crop_size), _get_teacher(distiller)
    networks: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {"student": (distiller.student, (image,))}
    if teacher is not None:
        networks["teacher"] = (teacher, (image,))
    if (adversary := distiller.adversary) is not None:
        maps = _forward_blank_image(distiller.student, crop_size).features[adversary.feature]
        networks["discriminator"] = (adversary.discriminator, (tuple(maps.shape[1:]), image))
    title = f"per image of the crop of {crop_size[0]}×{crop_size[1]}, float32"
    caption = "activations: what a training pass keeps for its backward pass"
    table = Table("network", *(Column(name, justify="right") for name in COSTS), title=title, caption=caption)
    for role, (network, shapes) in networks.items():
        kept = 0 if network is teacher else count_activation_bytes(network, *shapes)
        _add_costs(table, role, network, f"{count_macs(network, *shapes):,}", kept)
    _add_costs(table, "losses", distiller.losses, "", _count_loss_bytes(distiller, crop_size))
    return table


def _add_costs(table: Table, role: str, part: nn.Module, macs: str, kept: int) -> None:
    size = sum(p.numel() * p.element_size() for p in part.parameters())
    table.add_row(role, f"{count_parameters(part):,}", macs, f"{size:,}", f"{kept:,}")


def _count_loss_bytes(distiller: Distiller, crop_size: tuple[int, int]) -> int:
    """Return the bytes that the losses keep for a black image of one class, besides the networks' maps."""
    teacher = _get_teacher(distiller)
    student_output = _forward_blank_image(distiller.student, crop_size)
    teacher_output = None if teacher is None else _forward_blank_image(teacher, crop_size)
    maps = [student_output.logits, *student_output.features.values()]
    for tensor in maps:
        tensor.requires_grad_()
    if teacher_output is not None:
        maps += [teacher_output.logits, *teacher_output.features.values()]
    image, labels = torch.zeros(1, 3, *crop_size, dtype=torch.uint8), torch.zeros(1, *crop_size, dtype=torch.int64)
    batch = Batch(image, labels, torch.ones_like(labels, dtype=torch.bool), torch.zeros(1).long())
    step = Step(batch, student_output, teacher_output, progress=1.0)
    distiller.losses.eval()  # a loss with a memory would store this image
    kept = count_saved_tensor_bytes(lambda: distiller.losses(step), [*maps, *distiller.losses.parameters()])
    distiller.losses.train()
    return kept


def _get_teacher(distiller: Distiller) -> SegmentationModel | None:
    return None if distiller.teacher is None else distiller.teacher.network


def _forward_blank_image(network: SegmentationModel, crop_size: tuple[int, int]) -> NetworkOutput:
    was_training = network.training
    with torch.no_grad():
        output: NetworkOutput = network.eval()(torch.zeros(1, 3, *crop_size))
    network.train(was_training)
    return output
