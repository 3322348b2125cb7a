"""Networks with all their weights from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import ForeignCheckpoint, Normalization, SegmentationModel, add_missing_counters
from segkd.models.checkpoint_io import describe_zeroed, flush_denormals, load_state_dict_strict
from segkd.models.prefixes import has_all_keys, select_network
from segkd.models.student_io import from_spec, read_metadata, read_weights


def load_network(
    network: type[SegmentationModel],
    arguments: Mapping[str, Any],
    checkpoint: Path,
    num_classes: int,
    normalization: Normalization,
) -> tuple[SegmentationModel, str]:
    """Build a network with the weights of a checkpoint, strictly; also return one line that describes the checkpoint.

    Args:
        network: the class to build.
        arguments: constructor arguments, used where the file does not determine them.
        checkpoint: the weights. A file of segkd or of the network's authors determines how the network is built.
        num_classes: number of classes of the dataset.
        normalization: used where the file does not determine it.

    Raises:
        UserError: the file is missing, damaged, would run code, or holds another network.
    """
    spec = read_metadata(checkpoint)
    state = read_weights(checkpoint, spec)
    zeroed = flush_denormals(state)
    if spec is not None:
        model, origin = from_spec(spec, checkpoint), "segkd's "
        if not isinstance(model, network):
            raise UserError(
                f"{checkpoint} is of {type(model).__name__}, not of {network.__name__}; choose the model it was saved from"
            )
    elif foreign := match_foreign(network, state, checkpoint):
        model = network(**{**arguments, **foreign.arguments}, normalization=foreign.normalization)
        state, origin = foreign.state, f"{foreign.author}'s "
    else:
        model, origin = network(num_classes=num_classes, normalization=normalization, **arguments), ""
        state = select_network(state, partial(has_all_keys, model), checkpoint)
        state = add_missing_counters(model, model.convert_state_dict(state))
    load_state_dict_strict(model, state, checkpoint)
    built_with = ", ".join(f"{key}={value}" for key, value in model.arguments.items())
    summary = f"{origin}{network.__name__} ({built_with}), {model.num_classes} outputs"
    return model, f"{checkpoint.name}: {summary}{describe_zeroed(zeroed)}"


def match_foreign(
    network: type[SegmentationModel], state: Mapping[str, Tensor], checkpoint: Path
) -> ForeignCheckpoint | None:
    """Return the checkpoint of a network's authors that a file holds, also below a prefix; None for other files."""

    def matches(weights: Mapping[str, Tensor]) -> bool:
        return network.match_checkpoint(weights) is not None

    return network.match_checkpoint(select_network(state, matches, checkpoint, is_exact=False))
