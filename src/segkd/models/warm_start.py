"""Warm starts: a network initialized from one of its family, which may have been trained on other classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel, add_num_batches_tracked
from segkd.models.checkpoint_io import StateDict, check_finite, flush_denormals
from segkd.models.class_names import ClassCheck, describe_difference, find_class_difference
from segkd.models.prefixes import select_network
from segkd.models.pretrained import match_foreign
from segkd.models.student_io import parse_normalization, read_metadata, read_weights


class SourceNetwork(NamedTuple):
    """The trained network in a file."""

    name: str
    """Its class, or "a state dict"."""
    arguments: Mapping[str, Any]
    """Its constructor arguments, where they are known."""
    normalization: Normalization | None
    """The normalization it was trained with, where that is known."""
    state: StateDict
    """Its weights under segkd's names."""
    classes: tuple[str, ...] | None = None
    """Its classes, in order, where they are known."""

    @property
    def is_identified(self) -> bool:
        """Whether the file determines the network that it holds."""
        return self.normalization is not None


def read_source_network(checkpoint: Path, network: SegmentationModel) -> SourceNetwork:
    """Return the network in a file.

    Args:
        checkpoint: a file of segkd, of the original authors of the network or its family, or any state dict with segkd's names.
        network: the network that starts from it.

    Raises:
        UserError: the file is missing, damaged, not finite, or would run code.
    """
    spec = read_metadata(checkpoint)
    state = read_weights(checkpoint, spec)
    check_finite(state, checkpoint)
    flush_denormals(state)
    if spec is not None:
        name = str(spec["network"]).rpartition(".")[2]
        normalization = parse_normalization(spec, checkpoint.with_suffix(".yaml"))
        return SourceNetwork(name, spec["arguments"], normalization, state, spec.get("classes"))
    for network_class in (type(network), *network.family):
        if foreign := match_foreign(network_class, state, checkpoint):
            return SourceNetwork(network_class.__name__, foreign.arguments, foreign.normalization, foreign.state)
    state = select_network(state, partial(shares_keys, network), checkpoint, is_exact=False)
    return SourceNetwork("a state dict", {}, None, add_num_batches_tracked(state))


def shares_keys(network: SegmentationModel, state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has most of the network's keys."""
    keys = network.state_dict().keys()
    return 2 * len(keys & network.convert_state_dict(state).keys()) > len(keys)


@torch.no_grad()
def copy_matching_weights(
    network: SegmentationModel,
    source: SourceNetwork,
    checkpoint: Path,
    classes: Sequence[str] | None = None,
    check: ClassCheck = "names",
) -> str:
    """Copy the modules whose weights all match in name and shape, and the normalization; describe them in one line.

    The other modules keep their random weights, and so do those that depend on the classes where these differ.

    Args:
        network: the network to initialize, in place.
        source: the network to copy from.
        checkpoint: its file, for messages.
        classes: those of the network; None if they are not known.
        check: what must agree for classes to be the same.

    Raises:
        UserError: less than half of the network's weights match, or an adapter's own normalization differs.
    """
    own = network.state_dict()
    depth = next((depth for depth in range(1, 9) if len(_group_by_module(own, depth)) > 1), 1)
    modules = _group_by_module(own, depth)
    source_modules = _group_by_module(network.convert_state_dict(source.state), depth)
    reason, class_keys = "", set()
    if source.classes and classes and find_class_difference(source.classes, classes, check) is not None:
        reason = f", since {describe_difference(source.classes, classes, checkpoint.name, 'the dataset')}"
        class_keys = network.find_class_keys()
    matching = [
        name
        for name, part in modules.items()
        if _get_shapes(part) == _get_shapes(source_modules.get(name, {})) and not class_keys & part.keys()
    ]
    copied: StateDict = {key: tensor for name in matching for key, tensor in source_modules[name].items()}
    num_copied, total = (sum(tensor.numel() for tensor in state.values()) for state in (copied, own))
    if 2 * num_copied < total:
        raise UserError(
            f"{checkpoint} is {source.name}{_format_arguments(source.arguments)}; less than half of "
            f"{type(network).__name__}{_format_arguments(network.arguments)} could start from it (matching modules: "
            f"{', '.join(matching) or 'none'}); build the network as it is, or take one of the same family"
        )
    _copy_normalization(network, source, checkpoint)
    network.load_state_dict({**own, **copied})
    rest = ", ".join(name for name in modules if name not in matching)
    return (
        f"{checkpoint.name}: {100 * num_copied / total:.1f} % of the weights are {source.name}'s; "
        f"randomly initialized: {rest or 'nothing'}{reason}"
    )


def _copy_normalization(network: SegmentationModel, source: SourceNetwork, checkpoint: Path) -> None:
    if source.normalization is None:
        return
    expected = source.normalization.to_dict()
    if expected == network.normalization.to_dict():
        return
    if network.arguments.get("mean") is not None:  # an adapter has its own, and would be rebuilt with that
        keys = " ".join(f"student.{key}={str(value).replace(' ', '').lower()}" for key, value in expected.items())
        raise UserError(f"{checkpoint} was trained on images that were normalized otherwise; give {keys}")
    network.normalization = source.normalization


def _group_by_module(state: Mapping[str, Tensor], depth: int) -> dict[str, StateDict]:
    """Return the weights of each module at a depth of the module tree."""
    modules: dict[str, StateDict] = defaultdict(dict)
    for key, tensor in state.items():
        modules[".".join(key.split(".")[:depth])][key] = tensor
    return modules


def _get_shapes(state: StateDict) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in state.items()}


def _format_arguments(arguments: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key}={value}" for key, value in arguments.items() if key != "num_classes")
    return f" ({text})" if text else ""
