"""Losses as functions of tensors, for any training loop: `NAME_loss` is the formula of `loss=NAME`, without its weight.

    loss = cross_entropy_loss(logits, target) + 10 * pairwise_loss(student_features, teacher_features)

The losses of a run call these functions. What holds for all of them:

- The value is a scalar, the mean over what counts in the batch (pixels, positions, pairs, channels, images); zero, with a zero
  gradient, where nothing counts. The defaults are those of the loss.
- The student's tensors get the gradient. The teacher's are detached.
- Student and teacher have equal h and w, and where the formula needs it equal channels; resize or project before.
- `valid` says what counts, B H W bool at any resolution: a position has the value of its nearest pixel. Without it everything
  counts, unlabeled pixels included.
- Sums are in float32 or wider, also under autocast.
- In several processes the mean is that of all of them, once DistributedDataParallel has averaged the gradients.
- Tensors that do not fit raise a ValueError that says what to change. Labels that are no class are found on a CPU only: an
  accelerator would have to wait for the answer.

Shape letters: B images, C channels, K classes, H W height and width (h w at a network's own stride).
"""

from __future__ import annotations

from torch import Tensor

from segkd.losses.attention import attention_loss
from segkd.losses.channelwise import channelwise_loss
from segkd.losses.cirkd import cirkd_loss
from segkd.losses.cirkd_memory import cirkd_memory_loss
from segkd.losses.cross_entropy import cross_entropy_loss
from segkd.losses.dist import dist_loss
from segkd.losses.hint import hint_loss
from segkd.losses.ifvd import ifvd_loss
from segkd.losses.local import NEIGHBOR_OFFSETS as NEIGHBOR_OFFSETS
from segkd.losses.local import local_loss
from segkd.losses.lovasz import lovasz_loss
from segkd.losses.pairwise import compute_sum_squared_difference as compute_sum_squared_difference
from segkd.losses.pairwise import pairwise_loss
from segkd.losses.pixelwise import pixelwise_loss
from segkd.losses.tensors import at_least_float32 as at_least_float32
from segkd.losses.tensors import downsample_mask as downsample_mask
from segkd.losses.tensors import safe_normalize as safe_normalize

__all__ = [
    "attention_loss",
    "channelwise_loss",
    "cirkd_loss",
    "cirkd_memory_loss",
    "cross_entropy_loss",
    "dist_loss",
    "hint_loss",
    "ifvd_loss",
    "local_loss",
    "lovasz_loss",
    "pairwise_loss",
    "pixelwise_loss",
]

# Names of version 0.1.0.
pixelwise_kl = pixelwise_loss
pairwise_affinity_loss = pairwise_loss
local_affinity_loss = local_loss


def channelwise_kl(student: Tensor, teacher: Tensor, valid: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Return `channelwise_loss` with the default temperature of version 0.1.0."""
    return channelwise_loss(student, teacher, valid, temperature)
