"""Places of a map, for the losses that compare them: their class, and an even choice of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.features import require_teacher
from segkd.losses.functional import downsample_mask
from segkd.types import IGNORE_INDEX, Step

CLASS_SOURCES = ("labels", "teacher")
"""Who says which places are of one class."""


def check_class_source(class_source: str) -> str:
    """The name of a source of class_source, if there is such a source."""
    if class_source not in CLASS_SOURCES:
        raise ValueError(f"class_source is 'labels' or 'teacher', not '{class_source}'")
    return class_source


def downsample_classes(step: Step, size: tuple[int, int], class_source: str) -> Tensor:
    """B h w int64: the class of each place by its nearest pixel's label, or by the teacher's answer there.

    IGNORE_INDEX where a place does not count: padding, and with `labels` void too.
    """
    if class_source == "teacher":
        classes = require_teacher(step).logits_at(size).max(1).indices  # 30 times as fast as argmax on a CPU
    else:
        classes = F.interpolate(step.batch.target[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
    return classes.masked_fill(~downsample_mask(step.batch.valid, size), IGNORE_INDEX)


def one_hot_membership(classes: Tensor, count: int) -> Tensor:
    """B n K bool of B n: which class each place is of; of none where it does not count."""
    return classes[..., None] == torch.arange(count, device=classes.device)


def evenly_spaced(available: Tensor, teeth: int) -> tuple[Tensor, Tensor]:
    """`teeth` evenly spaced of 0 … available − 1, all of them where there are no more: … × teeth, and which exist."""
    numbers = torch.arange(teeth, device=available.device)
    spread = available[..., None].clamp(min=teeth)
    return (2 * numbers + 1) * spread // (2 * teeth), numbers < available[..., None]


def sample_evenly(mask: Tensor, teeth: int) -> tuple[Tensor, Tensor]:
    """At most `teeth` evenly spaced of the true places of … n: their indices, … × teeth, and which exist."""
    seen = mask.contiguous().cumsum(-1)
    ranks, exist = evenly_spaced(seen[..., -1], teeth)
    return torch.searchsorted(seen, ranks + 1).clamp(max=mask.shape[-1] - 1), exist
