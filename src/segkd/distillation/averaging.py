"""The moving average of a student."""

from __future__ import annotations

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segkd.models.base import SegmentationModel


def build_ema(student: SegmentationModel, decay: float) -> AveragedModel:
    """Return the moving average of a student's weights and running statistics: ema ← decay · ema + (1 − decay) · student."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(student, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
