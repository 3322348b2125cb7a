"""Networks from their nodes: fresh, with weights, in a second stage, with other classes, or several as one."""

from __future__ import annotations

from pathlib import Path

from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.ensemble import Ensemble, Remapped
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.imagenet import IMAGENET, load_backbone
from segkd.models.pspnet import PSPNet
from segkd.models.transfer import donor, related, take_over
from segkd.models.weights import restore
from segkd.nodes import FOR_BUILD, Node, construct, target_of

_ONE_FAMILY = (ESPNetC, ESPNet)  # one's weights start the other

INCLUDED = "included"
"""What an adapter's `checkpoint` says where its constructor brings the weights."""


def network(node: Node, facts: SegmentationDataset, more: int = 0) -> tuple[SegmentationModel, str | None]:
    """A network for the classes of a data set (and `more` outputs), and a line on each checkpoint that was read.

    Without a checkpoint its weights are random and it normalises by the data set's statistics. With a `backbone_checkpoint` it
    starts from a trained network of its family, each part that is the same, or from torchvision's ResNet, and normalises
    as that does.

    Raises:
        UserError: a checkpoint that does not fit, or both kinds of it; other classes than the data set's and no `class_map`.
    """
    if target_of(node) is Ensemble:
        return _ensemble(node, facts)
    class_map = node.get("class_map")
    made, found = _single(node, facts, len(facts.classes) + more, same_classes=class_map is None)
    return made if class_map is None else Remapped(made, class_map, facts.classes), found


def _single(
    node: Node, facts: SegmentationDataset, classes: int, same_classes: bool
) -> tuple[SegmentationModel, str | None]:
    normalization = Normalization(facts.mean, facts.std)
    checkpoint, backbone = node.get("checkpoint"), node.get("backbone_checkpoint")
    if checkpoint is not None and backbone is not None:
        raise UserError(
            f"checkpoint={checkpoint} holds the backbone too; give it or backbone_checkpoint={backbone}, not both"
        )
    included = str(checkpoint) == INCLUDED
    if included and target_of(node) is not Adapter:
        raise UserError(
            f"checkpoint={INCLUDED} is for model=adapter; a {target_of(node).__name__} starts at random, give it a file"
        )
    if checkpoint is not None and not included:
        arguments = {key: value for key, value in node.items() if key not in {"_target_", *FOR_BUILD}}
        return restore(target_of(node), arguments, Path(str(checkpoint)), classes, normalization, same_classes)
    fresh: SegmentationModel = construct(node, num_classes=classes, normalization=normalization)
    if same_classes and fresh.num_classes not in (classes, classes + 1):  # one more: void is trained as the last class
        raise UserError(
            f"the network scores {fresh.num_classes} classes, the data set has {classes}; "
            "build it for these, or give a class_map (docs/own_networks.md)"
        )
    return fresh, None if backbone is None else _start(fresh, str(backbone))


def _start(fresh: SegmentationModel, source: str) -> str:
    """Start from torchvision's backbone, or from a network of the family; one line on what was found."""
    if source == IMAGENET:
        return load_backbone(fresh, source)
    trained = donor(Path(source), (type(fresh), *_ONE_FAMILY))
    if isinstance(fresh, PSPNet) and not trained.known and not related(fresh, trained):
        return load_backbone(fresh, source)
    return take_over(fresh, trained, Path(source))


def _ensemble(node: Node, facts: SegmentationDataset) -> tuple[SegmentationModel, str | None]:
    if node.get("checkpoint") is not None or node.get("class_map") is not None:
        raise UserError("an ensemble has no checkpoint or class_map of its own; give them to its members")
    members, lines = {}, []
    for name, member in (node.get("members") or {}).items():
        check_weights(member, f"teacher.members.{name}")
        members[name], found = network(member, facts)
        lines += [found] if found else []
    return construct(node, members=members), "\n".join(lines)


def check_weights(node: Node, key: str) -> None:
    """A teacher needs weights.

    Raises:
        UserError: the network at `key` has none.
    """
    if node.get("_target_") is None:
        raise UserError(f"{key} names no network; say which, or leave it out")
    if target_of(node) is not Ensemble and node.get("checkpoint") is None:
        raise UserError(
            f"{key} has no weights, and a random teacher teaches nothing; give {key}.checkpoint=FILE"
            f"{f' ({INCLUDED}: the constructor brings them)' if target_of(node) is Adapter else ''}, "
            "or model@teacher=none to train on labels"
        )
