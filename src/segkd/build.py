"""The one place where settings become objects, and objects meet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from segkd.config import Node, construct, target_of
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.weights import restore


def dataset(node: Node, split: str) -> SegmentationDataset:
    """A split of the data set."""
    opened: SegmentationDataset = construct(node, split=split)
    return opened


def network(node: Node, checkpoint: Path | None, facts: type[SegmentationDataset]) -> tuple[SegmentationModel, str | None]:
    """A network for the classes of a data set, and one line on its checkpoint if it has one.

    Without a checkpoint its weights are random and it normalises by the data set's statistics.
    """
    classes, normalization = len(facts.classes), Normalization(facts.mean, facts.std)
    if checkpoint is None:
        fresh: SegmentationModel = construct(node, num_classes=classes, normalization=normalization)
        return fresh, None
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "checkpoint")}
    return restore(target_of(node), arguments, checkpoint, classes, normalization)


def device(accelerator: str) -> torch.device:
    """Where a command without a Trainer computes.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(f"accelerator={accelerator}, but PyTorch sees no CUDA device; use accelerator=cpu")
    if accelerator == "mps" or (accelerator in ("gpu", "auto") and torch.backends.mps.is_available()):
        return torch.device("mps")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
