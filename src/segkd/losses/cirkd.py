"""Cross-image relations: a place of one image finds its like in the others as the teacher's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.losses.functional import safe_normalize
from segkd.types import Step


class CIRKD(FeatureLoss):
    """Divergence of the student's from the teacher's similarities of a place to all places of each image of the batch.

        L = mean over images m, n and places a of m of Σ_b p_ab (log p_ab − log q_ab),   p_a = softmax_b(f_a · g_b / τ)

    with f_a and g_b unit features of places of images m and n, by the teacher in p and by the student in q. Yang et al.,
    *Cross-Image Relational Knowledge Distillation for Semantic Segmentation*, CVPR 2022 (arXiv 2204.06986), the mini-batch
    pixel-to-pixel term; m = n is a pair too, and τ² does not scale the value, as in their code (losses/cirkd_mini_batch.py).
    Maps are B C h w; the channels may differ. The teacher's map is resized to the student's. Padded places do not count,
    neither as a nor as b.

    Maps of more than `places` places are averaged over squares, of the least side that keeps to it (their code has 2×2
    as an option), so a matrix has at most (B · places)² numbers: 64 MiB in float32 for eight images. Each process compares its own
    images, as theirs does: the value depends on which images meet.

    Args:
        weight: 1, the authors' (train_cirkd.py, lambda-minibatch-pixel).
        temperature: τ, the authors' 0.1 (contrast-temperature).
        max_positions: greatest number of places of an image; 512 keeps 1/4 of the places along each side of a 64×128 map.
        feature: the features that are compared, of both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "process_invariance": "the images of one process are compared with each other, as by its authors"
    }

    def __init__(
        self, weight: float = 1.0, temperature: float = 0.1, max_positions: int = 512, feature: str = "encoder"
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if max_positions < 1:
            raise ValueError(f"places must be 1 or more, not {max_positions}")
        super().__init__(weight, feature)
        self.temperature = temperature
        self.max_positions = max_positions

    def forward(self, step: Step) -> Tensor:
        ours, theirs, valid = align_features(step, self.feature, self.feature)
        # Autocast would take the similarities, which the temperature then magnifies, in bfloat16.
        with torch.autocast(ours.device.type, enabled=False):
            side = pooling_size((ours.shape[-2], ours.shape[-1]), self.max_positions)
            valid = valid[:, None].to(ours)
            counted = F.avg_pool2d(valid, side, side, ceil_mode=True).flatten(1) > 0
            log_q, log_p = (
                self._log_likeness(F.avg_pool2d(maps * valid, side, side, ceil_mode=True).flatten(2), counted)
                for maps in (ours, theirs)
            )
            divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(3)
            pairs = counted[:, :, None] & counted.any(1)
            return global_mean((divergence * pairs).sum(), pairs.sum())

    def _log_likeness(self, features: Tensor, counted: Tensor) -> Tensor:
        """Log-probabilities of the places of each image for each place: B n B n of B C n."""
        units = safe_normalize(features)
        likeness = torch.einsum("mca,ncb->manb", units, units) / self.temperature
        # Finite, since an image without places would give log-probabilities that are not numbers.
        return likeness.masked_fill(~counted, torch.finfo(likeness.dtype).min).log_softmax(3)


def pooling_size(size: tuple[int, int], max_positions: int) -> int:
    """The least side of squares such that no more than `places` cover a map."""
    side = 1
    while -(-size[0] // side) * -(-size[1] // side) > max_positions:
        side += 1
    return side
