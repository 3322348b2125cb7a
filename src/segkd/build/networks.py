"""Networks from their nodes: fresh, with weights, in a second stage, with other classes, or several as one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from segkd.config.instantiate import FOR_BUILD, SpecDict, build_spec, resolve_target
from segkd.config.schema import TrainerSettings
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import load_network
from segkd.models.ensemble import ClassRemap, Ensemble
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pspnet import PSPNet
from segkd.models.torchvision_weights import IMAGENET, load_backbone
from segkd.models.warm_start import copy_matching_weights, read_source_network, shares_keys

_ONE_FAMILY = (ESPNetC, ESPNet)  # one's weights start the other

PRETRAINED_BY_CONSTRUCTOR = "included"
"""What an adapter's `checkpoint` says where its constructor brings the weights."""


def build_network(node: SpecDict, facts: SegmentationDataset, more: int = 0) -> tuple[SegmentationModel, str | None]:
    """A network for the classes of a data set (and `more` outputs), and a line on each checkpoint that was read.

    Without a checkpoint its weights are random and it normalises by the data set's statistics. With a `init_from` it
    starts from a trained network of its family, each part that is the same, or from torchvision's ResNet, and normalises
    as that does.

    Raises:
        UserError: a checkpoint that does not fit, or both kinds of it; other classes than the data set's and no `class_map`.
    """
    if resolve_target(node) is Ensemble:
        return _ensemble(node, facts)
    class_map = node.get("class_map")
    made, found = _single(node, facts, len(facts.classes) + more, same_classes=class_map is None)
    return made if class_map is None else ClassRemap(made, class_map, facts.classes), found


def _single(
    node: SpecDict, facts: SegmentationDataset, classes: int, same_classes: bool
) -> tuple[SegmentationModel, str | None]:
    normalization = Normalization(facts.mean, facts.std)
    checkpoint, backbone = node.get("checkpoint"), node.get("init_from")
    if checkpoint is not None and backbone is not None:
        raise UserError(f"checkpoint={checkpoint} holds the backbone too; give it or init_from={backbone}, not both")
    included = str(checkpoint) == PRETRAINED_BY_CONSTRUCTOR
    if included and resolve_target(node) is not Adapter:
        raise UserError(
            f"checkpoint={PRETRAINED_BY_CONSTRUCTOR} is for model=adapter; a {resolve_target(node).__name__} starts at random, give it a file"
        )
    if checkpoint is not None and not included:
        arguments = {key: value for key, value in node.items() if key not in {"_target_", *FOR_BUILD}}
        return load_network(
            resolve_target(node), arguments, Path(str(checkpoint)), classes, normalization, same_classes
        )
    fresh: SegmentationModel = build_spec(node, num_classes=classes, normalization=normalization)
    if same_classes and fresh.num_classes not in (classes, classes + 1):  # one more: void is trained as the last class
        raise UserError(
            f"the network scores {fresh.num_classes} classes, the data set has {classes}; "
            "build it for these, or give a class_map (docs/how-to/teachers.md)"
        )
    return fresh, None if backbone is None else _warm_start(fresh, str(backbone))


def _warm_start(fresh: SegmentationModel, source: str) -> str:
    """Start from torchvision's backbone, or from a network of the family; one line on what was found."""
    if source == IMAGENET:
        return load_backbone(fresh, source)
    trained = read_source_network(Path(source), (type(fresh), *_ONE_FAMILY))
    if isinstance(fresh, PSPNet) and not trained.known and not shares_keys(fresh, trained):
        return load_backbone(fresh, source)
    return copy_matching_weights(fresh, trained, Path(source))


def _ensemble(node: SpecDict, facts: SegmentationDataset) -> tuple[SegmentationModel, str | None]:
    if node.get("checkpoint") is not None or node.get("class_map") is not None:
        raise UserError("an ensemble has no checkpoint or class_map of its own; give them to its members")
    members, lines = {}, []
    for name, member in (node.get("members") or {}).items():
        check_teacher_weights(member, f"teacher.members.{name}")
        members[name], found = build_network(member, facts)
        lines += [found] if found else []
    return build_spec(node, members=members), "\n".join(lines)


def check_teacher_weights(node: SpecDict, key: str) -> None:
    """A teacher needs weights.

    Raises:
        UserError: the network at `key` has none.
    """
    if node.get("_target_") is None:
        raise UserError(f"{key} names no network; say which, or leave it out")
    if resolve_target(node) is not Ensemble and node.get("checkpoint") is None:
        raise UserError(
            f"{key} has no weights, and a random teacher teaches nothing; give {key}.checkpoint=FILE"
            f"{f' ({PRETRAINED_BY_CONSTRUCTOR}: the constructor brings them)' if resolve_target(node) is Adapter else ''}, "
            "or model@teacher=none to train on labels"
        )


def apply_speedups(network: nn.Module, settings: TrainerSettings) -> None:
    """Lay its weights out, and compile it, in place, as the settings say; its values change by rounding alone."""
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        network.compile(dynamic=False)
