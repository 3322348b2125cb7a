"""Networks and losses by the names of their yaml files, with arguments in place of the files' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkd.builders.networks import build_network
from segkd.config.instantiate import NetworkSpec, parse_spec
from segkd.config.named_parts import list_parts, read_part
from segkd.data.facts import OwnData
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, SegmentationModel
from segkd.utils.plugins import load_plugins


def list_models(plugins: Iterable[str] = ()) -> list[str]:
    """Return the names that `create_model` takes: those of segkd and of the plugins, packages of your own."""
    load_plugins(plugins)
    return list_parts("model")


def list_losses(plugins: Iterable[str] = ()) -> list[str]:
    """Return the names that `create_loss` takes: those of segkd and of the plugins, packages of your own."""
    load_plugins(plugins)
    return list_parts("loss")


def create_model(
    name: str,
    num_classes: int,
    *,
    checkpoint: str | Path | None = None,
    init_from: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    plugins: Iterable[str] = (),
    **arguments: Any,
) -> SegmentationModel:
    """Build a network, with random weights unless they are given, in training mode.

    It takes RGB images B 3 H W in 0..255, normalizes them itself, and returns a `NetworkOutput`.

    Args:
        name: one of `list_models()`.
        num_classes: number of classes.
        checkpoint: file with all weights: of segkd or of the network's authors.
        init_from: `imagenet`, or weights of a network of the family, to start from.
        mean: RGB in 0..255 that is subtracted; None for ImageNet's. Weights that come with their own normalization keep it.
        std: RGB in 0..255 that is divided by.
        plugins: packages of your own that have or define the network; they are imported, and stay plugins of the process.
        **arguments: of the constructor, in place of those in `configs/model/NAME.yaml`.

    Raises:
        UserError: there is no such network or argument, or weights do not fit.
    """
    load_plugins(plugins)
    node = read_part("model", name)
    _check_arguments(arguments)
    given = {"mean": mean, "std": std} if "mean" in node else {}  # an adapter takes them as arguments
    files = {"checkpoint": checkpoint, "init_from": init_from}
    node.update({key: value for key, value in {**given, **arguments}.items() if value is not None})
    node.update({key: str(file) for key, file in files.items() if file is not None})
    spec = _parse(node, SegmentationModel)
    assert isinstance(spec, NetworkSpec)
    if spec.target.has_members:
        raise UserError(
            f"'{name}' combines networks; give them to segkd.models.ensemble.{spec.target.__name__} directly"
        )
    classes = tuple(map(str, range(num_classes)))
    network = build_network(
        spec, OwnData(classes, tuple(mean or IMAGENET_MEAN), tuple(std or IMAGENET_STD)), check=None
    )
    if network.num_classes not in (num_classes, num_classes + 1):  # a last output may be void
        raise UserError(
            f"{checkpoint or name} has {network.num_classes} outputs, and num_classes={num_classes} is given; "
            f"give {network.num_classes}, or other weights"
        )
    return network


def create_loss(name: str, *, plugins: Iterable[str] = (), **arguments: Any) -> Loss:
    """Build a loss for `Distiller(losses={NAME: …})`.

    Args:
        name: one of `list_losses()`.
        plugins: packages of your own that have the loss; they are imported, and stay plugins of the process.
        **arguments: of the constructor, in place of those in `configs/loss/NAME.yaml`.

    Raises:
        UserError: there is no such loss or argument.
    """
    load_plugins(plugins)
    node = read_part("loss", name)
    _check_arguments(arguments)
    loss: Loss = _parse({**node.get(name, node), **arguments}, Loss).build()
    return loss


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    if "_target_" in arguments:
        raise UserError("the name fixes the class; leave _target_ out")


def _parse(node: Mapping[str, Any], kind: type) -> Any:
    try:
        return parse_spec(node, kind=kind)
    except ValueError as error:
        raise UserError(str(error)) from None
