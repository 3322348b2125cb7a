"""The mIoU of a network and of its exported file on a dataset."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.evaluate.loop import compute_confusion_matrices
from segkd.export.graph import Size
from segkd.export.runtimes import ExportedModel
from segkd.metrics import Scores
from segkd.models.base import SegmentationModel
from segkd.models.inference import infer_whole_image

log = logging.getLogger(__name__)


def score_before_and_after(
    network: SegmentationModel,
    exported: ExportedModel,
    dataset: SegmentationDataset,
    size: Size | None,
    workers: int,
    file: str,
) -> tuple[Scores, Scores, int]:
    """Return the scores of a network and of its file, and how many images were resized for them.

    Args:
        network: the network.
        exported: the file.
        dataset: the split to score both on.
        size: height and width to which images are resized for both; None: they keep their own.
        workers: loading processes.
        file: the file's name, for the progress bar.

    Raises:
        UserError: the data has no labeled pixel.
    """
    inferer = ResizingInferer(size)
    before = _score(network, inferer, dataset, workers, "the network")
    if math.isnan(before.miou):
        raise UserError(f"{dataset.display_name} {dataset.split} has no labeled pixel to score; choose another split")
    resized = inferer.resized
    if size is not None and resized:
        log.warning(
            "%d of %d images of %s %s are resized to %d×%d, the size of the file, for the scores",
            *(resized, len(dataset), dataset.display_name, dataset.split, *size),
        )
    return before, _score(exported, inferer, dataset, workers, file), resized


class ResizingInferer:
    """An inference mode for a network of one size: images are resized to it, and logits back.

    Args:
        size: height and width; None: images keep their own.
    """

    def __init__(self, size: Size | None) -> None:
        self.size = size
        self.resized = 0
        """Number of calls so far that resized images."""

    def __call__(self, network: SegmentationModel, images: Tensor) -> Tensor:
        """Return logits, B K H W."""
        original = (images.shape[-2], images.shape[-1])
        if self.size is None or original == self.size:
            return infer_whole_image(network, images)
        self.resized += 1
        logits: Tensor = network(resize_images(images, self.size)).logits_at(original).float()
        return logits


def resize_images(images: Tensor, size: Size | None) -> Tensor:
    """Resize B 3 H W uint8 bilinearly, smoothed where it shrinks as Pillow does; return it as it is where no size is given."""
    if size is None or images.shape[-2:] == size:
        return images
    resized = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte()


def compare_scores(
    before: Scores, after: Scores, resized: int, dataset: SegmentationDataset, max_miou_drop: float
) -> dict[str, Any]:
    """Return the scores before and after for the file's metadata."""
    scores_before, scores_after = before.to_dict(dataset.classes), after.to_dict(dataset.classes)
    names = ("miou", "iou")
    return {
        "dataset": dataset.display_name,
        "split": dataset.split,
        "images": len(dataset),
        "resized": resized,
        **{name: scores_after[name] for name in names},
        **{f"{name}_before": scores_before[name] for name in names},
        "max_miou_drop": max_miou_drop,
    }


def format_miou(before: Scores, after: Scores) -> str:
    """Return the mIoU of a file and of its network, in percent."""
    return f"{100 * after.miou:.2f}, the network {100 * before.miou:.2f}"


def _score(
    network: SegmentationModel, inferer: ResizingInferer, dataset: SegmentationDataset, workers: int, progress: str
) -> Scores:
    matrices = compute_confusion_matrices(
        network, dataset, inferer=inferer, device=torch.device("cpu"), workers=workers, progress=progress
    )
    return Scores.from_confusion_matrix(matrices.sum(0), len(dataset.classes))
