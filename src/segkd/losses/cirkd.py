"""Cross-image relations: positions are similar to those of other images as they are in the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.checks import check_temperature, prepare_maps, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from segkd.losses.tensors import get_size, safe_normalize
from segkd.types import Step


def cirkd_loss(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    temperature: float = 0.1,
    max_positions: int = 512,
) -> Tensor:
    """Return the mean over pairs of images m, n and positions a of m of KL(p_a ‖ q_a), with p_a = softmax_b(cos(f_a, g_b) / τ).

    Yang et al., CVPR 2022 (arXiv 2204.06986), the mini-batch pixel-to-pixel term; p is the teacher's and q the student's
    similarity to the positions b of n. It compares the images of one process.

    Args:
        student: a feature, B C h w.
        teacher: a feature, B C' h w.
        valid: the positions that count, B H W bool at any resolution, by default all.
        temperature: τ.
        max_positions: greatest number of positions of an image; larger maps are averaged over squares.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 64, 45, 60), torch.randn(2, 512, 45, 60)
        >>> cirkd_loss(student, teacher).shape
        torch.Size([])
    """
    _check_arguments(temperature, max_positions)
    student, teacher = prepare_maps(student, teacher)
    # Autocast would take the similarities, which the temperature then magnifies, in bfloat16.
    with torch.autocast(student.device.type, enabled=False):
        side = choose_pooling_size(get_size(student), max_positions)
        mask = prepare_valid(valid, student)[:, None].to(student)
        valid_nodes = F.avg_pool2d(mask, side, side, ceil_mode=True).flatten(1) > 0
        log_q, log_p = (
            _log_similarity(F.avg_pool2d(maps * mask, side, side, ceil_mode=True).flatten(2), valid_nodes, temperature)
            for maps in (student, teacher)
        )
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(3)
        pairs = valid_nodes[:, :, None] & valid_nodes.any(1)
        return global_mean((divergence * pairs).sum(), pairs.sum())


def choose_pooling_size(size: tuple[int, int], max_positions: int) -> int:
    """Return the smallest side of squares such that at most `max_positions` of them cover a map."""
    side = 1
    while -(-size[0] // side) * -(-size[1] // side) > max_positions:
        side += 1
    return side


def _log_similarity(features: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return the log-softmax of each position's similarities to the positions of each image, B n B n of B C n."""
    units = safe_normalize(features)
    similarity = torch.einsum("mca,ncb->manb", units, units) / temperature
    # Finite, since an image without valid positions would give NaN.
    return similarity.masked_fill(~valid, torch.finfo(similarity.dtype).min).log_softmax(3)


def _check_arguments(temperature: float, max_positions: int) -> None:
    check_temperature(temperature)
    if max_positions < 1:
        raise ValueError(f"max_positions must be 1 or more, not {max_positions}")


class CIRKD(FeatureLoss):
    """Divergence between the teacher's and the student's similarities of a position to all positions of each image.

        L = mean over images m, n and positions a of m of Σ_b p_ab (log p_ab − log q_ab),   p_a = softmax_b(f_a · g_b / τ)

    with f_a and g_b unit features of positions of images m and n of the batch, of the teacher in p and of the student in q.
    Yang et al., *Cross-Image Relational Knowledge Distillation for Semantic Segmentation*, CVPR 2022 (arXiv 2204.06986), the
    mini-batch pixel-to-pixel term; m = n is a pair too, and the value is not scaled by τ², as in their code
    (losses/cirkd_mini_batch.py). The channels may differ. The teacher's map is resized to the student's. Padded positions do
    not count, neither as a nor as b.

    Maps of more than `max_positions` positions are averaged over squares of the smallest side that suffices (their code has
    2×2 as an option), so a matrix has at most (B · max_positions)² numbers: 64 MiB in float32 for eight images. Each process
    compares its own images, as theirs does: the value depends on which images share a batch.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> CIRKD(temperature=0.1)(step).shape
        torch.Size([])

    Args:
        weight: 1, the authors' (train_cirkd.py, lambda-minibatch-pixel).
        temperature: τ, the authors' 0.1 (contrast-temperature).
        max_positions: greatest number of positions of an image; 512 keeps 1/4 of the positions along each side of a 64×128 map.
        feature: name of the compared feature, in both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "process_invariance": "only the images of one process are compared with each other, as by its authors"
    }

    def __init__(
        self, weight: float = 1.0, temperature: float = 0.1, max_positions: int = 512, feature: str = "encoder"
    ) -> None:
        _check_arguments(temperature, max_positions)
        super().__init__(weight, feature)
        self.temperature = temperature
        self.max_positions = max_positions

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, valid = align_features(step, self.feature, self.feature)
        return cirkd_loss(student, teacher, valid, self.temperature, self.max_positions)
