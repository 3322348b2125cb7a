"""Batches of a user's own data loader: pairs of images and targets, checked and completed to a `Batch`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segkd.data.base import Sample
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch

_CURE = "give RGB in 0..255, not scaled or normalized, because every network normalizes for itself"


def split_pair(batch: object) -> tuple[Tensor, Tensor]:
    """Return images and targets of a batch, which is a pair of them, a `Batch`, or stacked samples of a dataset of segkd.

    Raises:
        UserError: it is something else.
    """
    if isinstance(batch, Batch):
        return batch.images, batch.target
    if isinstance(batch, Sample) and isinstance(batch.image, Tensor) and isinstance(batch.label, Tensor):
        return batch.image.movedim(-1, -3), batch.label
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise UserError(f"a batch is {_describe(batch)}; let the data loader give pairs of tensors, (images, target)")
    return batch[0], batch[1]


def make_batch(images: Tensor, target: Tensor, step: int = 0, rank: int = 0) -> Batch:
    """Return a `Batch` of which every pixel is valid; its seeds follow from PyTorch's seed, the step and the process.

    Args:
        images: B 3 H W.
        target: B H W integers.
        step: batches before this one.
        rank: index of the process.
    """
    sequence = np.random.SeedSequence([torch.initial_seed(), step, rank])
    seeds = torch.from_numpy((sequence.generate_state(len(images), np.uint64) >> np.uint64(1)).astype(np.int64))
    valid = torch.ones(target.shape, dtype=torch.bool, device=target.device)
    return Batch(images, target.long(), valid, seeds.to(images.device))


def check_pair(images: Tensor, target: Tensor, num_classes: int, same_size: bool = True) -> None:
    """Check shapes, types and labels of a batch.

    Args:
        images: B 3 H W, uint8 or float.
        target: B H W integers: classes or IGNORE_INDEX.
        num_classes: K, the classes of the data.
        same_size: whether images and target must be of one size; scores are counted at the target's.

    Raises:
        UserError: something is wrong; says what was given and what is expected.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        hint = "; permute them: images.permute(0, 3, 1, 2)" if images.ndim == 4 and images.shape[3] == 3 else ""
        raise UserError(f"images are {_describe(images)}, and B×3×H×W is expected{hint}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"images are {images.dtype}; give uint8 or float, RGB in 0..255")
    if target.ndim != 3 or target.is_floating_point() or target.dtype == torch.bool:
        hint = "; squeeze it: target.squeeze(1)" if target.ndim == 4 and target.shape[1] == 1 else ""
        raise UserError(
            f"the target is {_describe(target)} of {target.dtype}, and one class index per pixel is expected: B×H×W integers{hint}"
        )
    if len(target) != len(images) or (same_size and target.shape[1:] != images.shape[2:]):
        raise UserError(
            f"images are {_describe(images)} and the target is {_describe(target)}; give both the same number and size"
        )
    wrong = (target != IGNORE_INDEX) & ((target < 0) | (target >= num_classes))
    if wrong.any():
        raise UserError(
            f"the target holds {int(target[wrong][0])}; give classes 0..{num_classes - 1}, and {IGNORE_INDEX} where a pixel "
            "has none"
        )


def check_range(images: Tensor) -> None:
    """Check that float images look like RGB in 0..255.

    Raises:
        UserError: they are scaled to 0..1 or normalized, or exceed 255.
    """
    if not images.is_floating_point() or not images.numel():
        return
    low, high = (bound.item() for bound in images.aminmax())
    if low < 0 or high <= 1 or high > 255:
        raise UserError(f"float images are in {low:.3g}..{high:.3g}; {_CURE}")


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return "×".join(map(str, value.shape)) or "a single number"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(part).__name__ for part in value) or 'nothing'}"
    return f"a {type(value).__name__}"
