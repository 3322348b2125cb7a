"""A network that starts from one of its family, which may have been trained on other classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel, add_num_batches_tracked
from segkd.models.checkpoint_io import StateDict, flush_denormals, parse_normalization, read_metadata, read_state_dict


class SourceNetwork(NamedTuple):
    """What a file holds of a trained network."""

    called: str
    arguments: Mapping[str, Any]
    """What it was built with, where that is known."""
    normalization: Normalization | None
    """What it was trained on, where that is known."""
    state: StateDict
    """Its weights under our names."""

    @property
    def known(self) -> bool:
        """Whether the file says whose it is."""
        return self.normalization is not None


def read_source_network(checkpoint: Path, kinds: Iterable[type[SegmentationModel]]) -> SourceNetwork:
    """The network in a file: as is said beside it, as the authors of one of `kinds` wrote it, or whatever has our names.

    Raises:
        UserError: the file is missing, damaged, or would run code.
    """
    state, facts = read_state_dict(checkpoint), read_metadata(checkpoint)
    flush_denormals(state)
    if facts is not None:
        called = str(facts["network"]).rpartition(".")[2]
        return SourceNetwork(
            called, facts["arguments"], parse_normalization(facts, checkpoint.with_suffix(".yaml")), state
        )
    for kind in kinds:
        if origin := kind.match_checkpoint(state):
            return SourceNetwork(kind.__name__, origin.arguments, origin.normalization, origin.state)
    return SourceNetwork("a state dict", {}, None, add_num_batches_tracked(state))


def shares_keys(network: SegmentationModel, trained: SourceNetwork) -> bool:
    """Whether most names of the network's weights are the donor's too."""
    ours = network.state_dict().keys()
    return 2 * len(ours & trained.state.keys()) > len(ours)


@torch.no_grad()
def copy_matching_weights(network: SegmentationModel, trained: SourceNetwork, checkpoint: Path) -> str:
    """Copy the parts that are the same in both, each whole or not at all, and the normalisation; one line on what starts anew.

    Raises:
        UserError: these hold less than half of the network's weights.
    """
    ours = network.state_dict()
    depth = next((depth for depth in range(1, 9) if len(_parts(ours, depth)) > 1), 1)
    parts, theirs = _parts(ours, depth), _parts(network.convert_state_dict(trained.state), depth)
    same = [name for name, part in parts.items() if _shapes(part) == _shapes(theirs.get(name, {}))]
    taken: StateDict = {key: tensor for name in same for key, tensor in theirs[name].items()}
    count, all_of_them = (sum(tensor.numel() for tensor in state.values()) for state in (taken, ours))
    if 2 * count < all_of_them:
        raise UserError(
            f"{checkpoint} is {trained.called}{_built(trained.arguments)}; less than half of {type(network).__name__}"
            f"{_built(network.arguments)} could start from it (of its parts the same: {', '.join(same) or 'none'}); build the network "
            "as it is, or take one of the same family"
        )
    if trained.normalization is not None and (wanted := trained.normalization.facts()) != network.normalization.facts():
        if network.arguments.get("mean") is not None:  # an adapter says itself how it wants its images
            told = " ".join(f"student.{key}={str(value).replace(' ', '').lower()}" for key, value in wanted.items())
            raise UserError(f"{checkpoint} was trained on images that were normalised otherwise; give {told}")
        network.normalization = trained.normalization
    network.load_state_dict({**ours, **taken})
    anew = ", ".join(name for name in parts if name not in same)
    return f"{checkpoint.name}: {100 * count / all_of_them:.1f} % of the weights are {trained.called}'s; starting anew: {anew or 'nothing'}"


def _parts(state: Mapping[str, Tensor], depth: int) -> dict[str, StateDict]:
    """Weights by the module that they belong to, so many steps down."""
    parts: dict[str, StateDict] = defaultdict(dict)
    for key, tensor in state.items():
        parts[".".join(key.split(".")[:depth])][key] = tensor
    return parts


def _shapes(part: StateDict) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in part.items()}


def _built(arguments: Mapping[str, Any]) -> str:
    told = ", ".join(f"{key}={value}" for key, value in arguments.items() if key != "num_classes")
    return f" ({told})" if told else ""
