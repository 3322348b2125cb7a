"""Networks with all their weights from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import describe_zeroed, flush_denormals, load_state_dict_strict, read_state_dict
from segkd.models.student_io import from_spec, read_metadata


def load_network(
    network: type[SegmentationModel],
    arguments: Mapping[str, Any],
    checkpoint: Path,
    num_classes: int,
    normalization: Normalization,
    same_classes: bool = True,
) -> tuple[SegmentationModel, str]:
    """Build a network with the weights of a checkpoint, strictly; also return one line that describes the checkpoint.

    Args:
        network: the class to build.
        arguments: constructor arguments, used where the file does not determine them.
        checkpoint: the weights. A file of segkd or of the network's authors determines how the network is built.
        num_classes: number of classes of the dataset.
        normalization: used where the file does not determine it.
        same_classes: whether the network must have `num_classes` classes.

    Raises:
        UserError: the file is missing, damaged, would run code, or holds another network or other classes.
    """
    state = read_state_dict(checkpoint)
    zeroed = flush_denormals(state)
    spec = read_metadata(checkpoint)
    if spec is not None:
        model, origin = from_spec(spec, checkpoint), "segkd's "
        if not isinstance(model, network):
            raise UserError(
                f"{checkpoint} is of {type(model).__name__}, not of {network.__name__}; choose the model it was saved from"
            )
    elif foreign := network.match_checkpoint(state):
        model = network(**{**arguments, **foreign.arguments}, normalization=foreign.normalization)
        state, origin = foreign.state, f"{foreign.author}'s "
    else:
        model, origin = network(num_classes=num_classes, normalization=normalization, **arguments), ""
        state = model.convert_state_dict(state)
    load_state_dict_strict(model, state, checkpoint)
    if same_classes:
        _check_num_classes(model, num_classes, checkpoint)
    built_with = ", ".join(f"{key}={value}" for key, value in model.arguments.items())
    summary = f"{origin}{network.__name__} ({built_with}), {model.num_classes} outputs"
    return model, f"{checkpoint.name}: {summary}{describe_zeroed(zeroed)}"


def _check_num_classes(model: SegmentationModel, num_classes: int, checkpoint: Path) -> None:
    if model.num_classes not in (num_classes, num_classes + 1):  # one more: void was trained as the last class
        raise UserError(
            f"{checkpoint} has {model.num_classes} classes, the dataset has {num_classes}; take weights of this dataset"
        )
