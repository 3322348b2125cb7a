"""Build networks from specs: at random, from a checkpoint, warm-started, with a class map, or as an ensemble."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from segkd.config.instantiate import NetworkSpec
from segkd.config.training import TrainerSettings
from segkd.data.facts import DataFacts
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.class_names import ClassCheck, check_classes
from segkd.models.ensemble import ClassRemap
from segkd.models.pretrained import load_network
from segkd.models.torchvision_weights import IMAGENET, load_backbone
from segkd.models.warm_start import copy_matching_weights, read_source_network, shares_keys

log = logging.getLogger(__name__)

CONSTRUCTOR_WEIGHTS = "pretrained"
"""The `checkpoint` of an adapter whose constructor loads the weights."""

_OTHER_CLASSES = (
    "take weights of the dataset's classes, or map a teacher's with teacher.class_map (docs/how-to/teachers.md)"
)

_CONSTRUCTOR_WEIGHTS_0_1_0 = "included"
"""Its name in version 0.1.0."""


def build_network(
    spec: NetworkSpec, dataset: DataFacts, extra_classes: int = 0, check: ClassCheck | None = "names"
) -> SegmentationModel:
    """Return a network for the classes of a dataset.

    Without `checkpoint` its weights are random, and it normalizes with the dataset's statistics. With `init_from` it starts from
    a trained network of its family, layer by layer where shapes match, or from torchvision's ResNet, and normalizes as that does.

    Args:
        spec: what to build.
        dataset: the data whose classes it predicts.
        extra_classes: outputs beyond these classes.
        check: what trained weights and the dataset must agree in without a `class_map`; None for weights of any classes.

    Raises:
        UserError: a checkpoint does not fit, or is given beside `init_from`; its classes are not the dataset's, and there is
            no `class_map`.
    """
    if spec.target.has_members:
        return _build_ensemble(spec, dataset, check)
    network = _build_single(spec, dataset, len(dataset.classes) + extra_classes, check)
    if spec.class_map is not None:
        return ClassRemap(network, spec.class_map, dataset.classes)
    if check is not None:
        file = "the network" if spec.checkpoint is None else spec.checkpoint
        check_classes(network, dataset.classes, check, file, dataset.display_name, _OTHER_CLASSES)
    return network


def check_teacher_weights(spec: NetworkSpec | None, key: str) -> None:
    """Check that a teacher has weights.

    Raises:
        UserError: the network at `key` has none.
    """
    if spec is None:
        raise UserError(f"{key} names no network; choose one, or leave it out")
    if not spec.target.has_members and spec.checkpoint is None:
        hint = f" ({CONSTRUCTOR_WEIGHTS}: the constructor loads them)" if spec.target.constructor_loads_weights else ""
        raise UserError(
            f"{key} has no weights, and a random teacher teaches nothing; give {key}.checkpoint=FILE{hint}, "
            "or model@teacher=none to train on labels"
        )


def apply_speedups(network: nn.Module, settings: TrainerSettings) -> None:
    """Set memory format and compilation in place, as the settings say; outputs change only by rounding."""
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        network.compile(dynamic=False)


def _build_single(
    spec: NetworkSpec, dataset: DataFacts, num_classes: int, check: ClassCheck | None
) -> SegmentationModel:
    normalization = Normalization(dataset.mean, dataset.std)
    if spec.checkpoint is not None and spec.init_from is not None:
        raise UserError(
            f"checkpoint={spec.checkpoint} holds the whole network; give it or init_from={spec.init_from}, not both"
        )
    loads_own_weights = spec.checkpoint in (CONSTRUCTOR_WEIGHTS, _CONSTRUCTOR_WEIGHTS_0_1_0)
    if loads_own_weights and not spec.target.constructor_loads_weights:
        raise UserError(
            f"checkpoint={CONSTRUCTOR_WEIGHTS} is for model=adapter; a {spec.target.__name__} starts at random, give it a file"
        )
    if spec.checkpoint is not None and not loads_own_weights:
        loaded, summary = load_network(spec.target, spec.arguments, Path(spec.checkpoint), num_classes, normalization)
        log.info(summary)
        return loaded
    network: SegmentationModel = spec.build(num_classes=num_classes, normalization=normalization)
    if spec.init_from is not None:
        log.info(_warm_start(network, spec.init_from, dataset, check))
    return network


def _warm_start(network: SegmentationModel, source: str, dataset: DataFacts, check: ClassCheck | None) -> str:
    """Initialize from torchvision's backbone or from a network of the family; return one line on what was copied."""
    if source == IMAGENET:
        return load_backbone(network, source)
    trained = read_source_network(Path(source), network)
    if network.takes_resnet_weights and not trained.is_identified and not shares_keys(network, trained.state):
        return load_backbone(network, source)
    return copy_matching_weights(network, trained, Path(source), dataset.classes, check or "count")


def _build_ensemble(spec: NetworkSpec, dataset: DataFacts, check: ClassCheck | None) -> SegmentationModel:
    if spec.checkpoint is not None or spec.class_map is not None:
        raise UserError("an ensemble has no checkpoint or class_map of its own; give them to its members")
    members = {}
    for name, member in (spec.arguments.get("members") or {}).items():
        check_teacher_weights(member, f"teacher.members.{name}")
        members[name] = build_network(member, dataset, check=check)
    network: SegmentationModel = spec.build(members=members)
    return network
