"""Finding one network in a state dict whose keys carry a prefix: of Lightning's module, of `torch.compile`, of a wrapper."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.models.checkpoint_io import StateDict, describe_names

log = logging.getLogger(__name__)

_MAX_DEPTH = 4  # module._orig_mod.model.net.
_MIN_FRACTION = 1 / 8  # of the keys, that a network has beside a larger one
_USUAL_NAMES = {"module", "_orig_mod", "model", "net", "network", "segmentor"}


def select_network(
    state: Mapping[str, Tensor], fits: Callable[[StateDict], bool], path: Path, is_exact: bool = True
) -> StateDict:
    """Return the weights under the one prefix with which they fit; all of them where none does.

    Args:
        state: weights by key.
        fits: whether weights, without the prefix, are those of the network.
        path: their file, for messages.
        is_exact: whether `fits` compares all keys. Otherwise keys may only be left out beside a prefix of the usual names,
            since a network may hold another one.

    Raises:
        UserError: several networks fit.
    """
    if fits(dict(state)):
        return dict(state)
    found: dict[str, StateDict] = {}
    for prefix in _list_prefixes(state):
        inner = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        is_allowed = is_exact or len(inner) == len(state) or set(prefix[:-1].split(".")) <= _USUAL_NAMES
        # A prefix that extends another one finds the same weights.
        if is_allowed and not prefix.startswith(tuple(found)) and fits(inner):
            found[prefix] = inner
    if len(found) > 1:
        raise UserError(
            f"{path} holds several networks that fit, under {' and '.join(map(repr, found))}; save one of them alone"
        )
    for prefix, inner in found.items():
        rest = [key for key in state if not key.startswith(prefix)]
        if rest:
            log.info("%s: the weights under '%s' are taken; %s left out", path, prefix, describe_names(rest))
        return inner
    return dict(state)


def has_all_keys(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has every key of a network, BatchNorm's counters aside."""
    converted = network.convert_state_dict(state) if isinstance(network, SegmentationModel) else state
    return all(key in converted for key in network.state_dict() if not key.endswith("num_batches_tracked"))


def _list_prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes that many keys share, shorter ones first."""
    counts = Counter(
        ".".join(parts[:depth]) + "."
        for parts in (key.split(".") for key in state)
        for depth in range(1, min(_MAX_DEPTH, len(parts) - 1) + 1)
    )
    return sorted((prefix for prefix, count in counts.items() if count >= _MIN_FRACTION * len(state)), key=len)
