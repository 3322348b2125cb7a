"""Scoring a network on a data set."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.progress import track

from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import ExactShard, Samples, loader
from segkd.metrics import ConfusionMatrix
from segkd.models.base import SegmentationModel


@torch.no_grad()
def confusion_matrix(
    network: SegmentationModel,
    dataset: SegmentationDataset,
    *,
    count_void: bool = False,
    device: torch.device | None = None,
    workers: int = 0,
    limit: int | None = None,
    progress: str | None = None,
) -> torch.Tensor:
    """The confusion matrix of a network over whole images, one at a time, at the labels' own size.

    Logits are enlarged bilinearly, with aligned corners where the network's family does so. The network's mode is left as
    it was.

    Args:
        count_void: see `ConfusionMatrix`.
        device: where to compute; the network's own place if not given.
        limit: take this many images, evenly spread, instead of all.
        progress: the text beside a progress bar on stderr; no bar without it.
    """
    device = device or next(network.parameters()).device
    matrix = ConfusionMatrix(len(dataset.classes), count_void).to(device)
    shard = ExactShard(len(dataset))
    if limit is not None and limit < len(dataset):
        shard.draws = [shard.draws[i * len(dataset) // limit] for i in range(limit)]
    batches = loader(Samples(dataset), shard, workers=workers)
    was_training = network.training
    network.to(device).eval()
    try:
        for batch in track(batches, progress or "", len(shard), console=Console(stderr=True), disable=progress is None):
            target = batch.target.to(device)
            matrix.update(network(batch.images.to(device)).at((target.shape[-2], target.shape[-1])).float(), target)
    finally:
        network.train(was_training)
    counts: torch.Tensor = matrix.compute()
    return counts
