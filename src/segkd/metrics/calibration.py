"""Calibration: how well a network's confidence matches its accuracy."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from segkd.types import IGNORE_INDEX


class CalibrationScores(NamedTuple):
    """Means over labeled pixels."""

    ece: float
    nll: float
    brier: float


class Calibration(Metric):
    """Calibration of the class probabilities, softmax of the logits, over labeled pixels.

    - ECE = Σ_b n_b/n · |accuracy_b - confidence_b| over bins of equal width of the greatest probability (Guo et al., *On
      Calibration of Modern Neural Networks*, ICML 2017, arXiv 1706.04599); a value on a bin's upper end belongs to it.
    - NLL = -log p(label), in nats.
    - Brier = Σ_k (p_k - [k is the label])², 0 to 2 (Brier, 1950).

    Args:
        num_classes: K.
        bins: number of bins of the ECE.
    """

    full_state_update = False
    pixels: Tensor
    hits: Tensor
    confidence: Tensor
    nll: Tensor
    brier: Tensor

    def __init__(self, num_classes: int, bins: int = 15) -> None:
        super().__init__()
        self.num_classes, self.bins = num_classes, bins
        for name in ("pixels", "hits"):
            self.add_state(name, torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("nll", "brier"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits B K H W (outputs beyond the classes are ignored), target B H W."""
        labeled = target != IGNORE_INDEX
        labels = target[labeled]
        log_p = F.log_softmax(logits[:, : self.num_classes].float(), 1).movedim(1, -1)[labeled]
        label_log_p = log_p.gather(1, labels[:, None])[:, 0].double()
        p = log_p.exp()
        confidence, predicted = p.max(1)
        confidence = confidence.double()
        index = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        self.pixels += torch.bincount(index, minlength=self.bins)
        self.hits += torch.bincount(index[predicted == labels], minlength=self.bins)
        self.confidence += torch.bincount(index, confidence, self.bins)
        self.nll -= label_log_p.sum()
        # Σ (p - y)² = Σ p² - 2 p_label + 1
        self.brier += (p.double().square().sum(1) - 2 * label_log_p.exp() + 1).sum()

    def compute(self) -> CalibrationScores:
        """Return the three scores; NaN without a labeled pixel."""
        n = self.pixels.sum().double()
        ece = (self.hits - self.confidence).abs().sum() / n
        return CalibrationScores(ece.item(), (self.nll / n).item(), (self.brier / n).item())
