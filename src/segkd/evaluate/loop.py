"""Scoring a network on a data set: every image is seen once, and all scores hear the same answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SampleDataset, build_loader
from segkd.data.samplers import DistributedEvalSampler
from segkd.data.transforms import Augmentation
from segkd.evaluate.inference import Inferer, whole_image
from segkd.metrics import ConfusionMatrix
from segkd.models.base import SegmentationModel


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    index: int
    """Of the image in the data set."""
    images: Tensor
    """1 3 H W, RGB in 0..255."""
    logits: Tensor
    """1 K H W: the outputs that compete."""
    target: Tensor
    """1 H W."""

    @cached_property
    def predicted(self) -> Tensor:
        """The greatest of the competing outputs, 1 H W int64."""
        return self.logits.max(1).indices  # 30 times as fast as argmax on a CPU


Metric = Callable[[Prediction], None]


@torch.no_grad()
def compute_confusion_matrices(
    network: SegmentationModel,
    dataset: SegmentationDataset,
    *,
    count_void: bool = False,
    view: Inferer = whole_image,
    observers: Sequence[Metric] = (),
    corruption: Augmentation | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    workers: int = 0,
    limit: int | None = None,
    progress: str | None = None,
) -> Tensor:
    """The confusion matrix of each image, N K K int64, one image at a time, at the labels' own size.

    The network's mode is left as it was.

    Args:
        count_void: see `ConfusionMatrix`.
        view: how the network looks at an image.
        observers: other scores; each hears every answer.
        corruption: what is done to images before; drawn by `seed` for each image.
        device: where to compute; the network's own place if not given.
        limit: take this many images, evenly spread, instead of all.
        progress: the text beside a progress bar on stderr; no bar without it.
    """
    device = device or next(network.parameters()).device
    classes = len(dataset.classes)
    matrix = ConfusionMatrix(classes, count_void).to(device)
    shard = DistributedEvalSampler(len(dataset))
    if limit is not None and limit < len(dataset):
        shard.draws = [shard.draws[i * len(dataset) // limit] for i in range(limit)]
    batches = build_loader(SampleDataset(dataset, corruption, seed), shard, workers=workers)
    shown = track(batches, progress or "", len(shard), console=Console(stderr=True), disable=progress is None)
    matrices = []
    was_training = network.training
    network.to(device).eval()
    try:
        for draw, batch in zip(shard, shown, strict=True):
            images, target = batch.images.to(device), batch.target.to(device)
            logits = view(network, images)
            matrix.reset()
            matrix.update(logits, target)
            matrices.append(matrix.compute().cpu())
            answer = Prediction(draw.image, images, logits if count_void else logits[:, :classes], target)
            for forward_networks in observers:
                forward_networks(answer)
    finally:
        network.train(was_training)
    return torch.stack(matrices)


def compute_confusion_matrix(
    network: SegmentationModel,
    dataset: SegmentationDataset,
    *,
    count_void: bool = False,
    device: torch.device | None = None,
    workers: int = 0,
    limit: int | None = None,
    progress: str | None = None,
) -> Tensor:
    """The confusion matrix of a network over whole images, K K int64; see `compute_confusion_matrices`."""
    return compute_confusion_matrices(
        network, dataset, count_void=count_void, device=device, workers=workers, limit=limit, progress=progress
    ).sum(0)
