"""Score a network from Python, on a dataset of segkd or on the user's own data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segkd.data.base import SegmentationDataset
from segkd.data.batches import check_pair, check_range, split_pair
from segkd.data.datamodule import SampleDataset, build_loader
from segkd.data.samplers import DistributedEvalSampler
from segkd.errors import UserError
from segkd.metrics import ConfusionMatrix, Scores
from segkd.models.base import SegmentationModel
from segkd.models.class_names import check_classes, name_classes
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.models.third_party import extract_logits
from segkd.types import NetworkOutput, resize


class Evaluation(NamedTuple):
    """Scores of a network, all from one confusion matrix over all images; fractions in 0..1."""

    miou: float
    """Mean of the IoU over the classes that are labeled or predicted."""
    iou: dict[str, float]
    """By class; NaN for one that is neither labeled nor predicted."""
    class_accuracy: float
    """Mean over the labeled classes of the fraction of their pixels that are right."""
    pixel_accuracy: float
    """Fraction of the labeled pixels that are right."""
    confusion_matrix: Tensor
    """Pixels by true class (rows) and predicted class (columns), K K int64."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: SegmentationDataset | Dataset[Any] | Iterable[Any],
    *,
    classes: Sequence[str] | int | None = None,
    device: torch.device | str | None = None,
    workers: int = 0,
) -> Evaluation:
    """Score a network on a dataset, as `python -m segkd.evaluate` does; unlabeled pixels are ignored.

    It runs in this process alone, whatever other processes there are. The network's mode is restored.

    Args:
        model: a network of segkd, which takes RGB in 0..255; or any module that returns logits B K h w, which gets the images
            as they are (`segkd.wrap_model` normalizes for it).
        dataset: a dataset of segkd; or a PyTorch dataset of pairs (image 3 H W, target H W); or batches of pairs (B 3 H W,
            B H W), such as a DataLoader. Targets are integers: a class, or 255. Logits are enlarged to their size.
        classes: class names, or their number; None for those of the dataset or the network.
        device: where to compute; None for where the network is.
        workers: loading processes, where a dataset and no loader is given.

    Raises:
        UserError: images, targets or classes do not fit, or no pixel is labeled.
    """
    names = _find_classes(model, dataset, classes)
    place = _find_device(model) if device is None else torch.device(device)
    matrix = ConfusionMatrix(len(names)).to(place)
    modes = {module: module.training for module in model.modules()}
    model.to(place).eval()
    try:
        for number, batch in enumerate(_make_batches(dataset, workers)):
            images, target = (part.to(place) for part in split_pair(batch))
            check_pair(images, target, len(names), same_size=False)
            if number == 0 and isinstance(model, SegmentationModel):
                check_range(images)
            matrix.update(_predict(model, images, target, len(names)), target)
    finally:
        for module, is_training in modes.items():
            module.training = is_training
    # `compute` would wait for other processes, which may not evaluate at all.
    counts = matrix.counts.cpu()
    if not counts.any():
        raise UserError(f"no pixel of the dataset is labeled; give targets of 0..{len(names) - 1}")
    scores = Scores.from_confusion_matrix(counts, len(names))
    iou = dict(zip(names, scores.iou, strict=True))
    return Evaluation(scores.miou, iou, scores.class_accuracy, scores.pixel_accuracy, counts)


def _find_classes(model: nn.Module, dataset: object, classes: Sequence[str] | int | None) -> tuple[str, ...]:
    """Return the class names.

    Raises:
        UserError: nothing says them, or the network has others than the dataset.
    """
    if isinstance(dataset, SegmentationDataset) and classes is None:
        if isinstance(model, SegmentationModel):
            cure = "use a network for its classes, or give classes=NUMBER if the same ones have other names"
            check_classes(model, dataset.classes, "names", "the network", dataset.display_name, cure)
        classes = dataset.classes
    if isinstance(model, SegmentationModel):
        return name_classes(model, classes)
    if classes is None:
        raise UserError(
            f"a {type(model).__name__} does not say how many classes there are; give classes=NAMES or their number"
        )
    return tuple(map(str, range(classes) if isinstance(classes, int) else classes))


def _find_device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _make_batches(dataset: Any, workers: int) -> Iterable[Any]:
    """Return the batches of a dataset; a loader, or another iterable of batches, stays as it is."""
    if isinstance(dataset, SegmentationDataset):
        return build_loader(SampleDataset(dataset), DistributedEvalSampler(len(dataset)), workers=workers)
    if isinstance(dataset, Dataset):
        return DataLoader(dataset, num_workers=workers, generator=torch.Generator())
    if not isinstance(dataset, Iterable):
        raise UserError(
            f"a {type(dataset).__name__} is no dataset; give a torch Dataset or a DataLoader of pairs (image, target)"
        )
    return dataset


def _predict(model: nn.Module, images: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the logits at the size of the target, B K H W.

    Raises:
        UserError: there are others than of the classes, and void.
    """
    if isinstance(model, SegmentationModel):
        output: NetworkOutput = model(enlarge_to_minimum(images, model))
        logits, align_corners = output.logits, output.align_corners
    else:
        logits, align_corners = extract_logits(model(images.float()), type(model).__name__), False
    if logits.shape[1] not in (num_classes, num_classes + 1):
        raise UserError(
            f"the model has {logits.shape[1]} outputs, and there are {num_classes} classes; give classes=NAMES or their number"
        )
    return resize(logits.float(), (target.shape[-2], target.shape[-1]), align_corners)
