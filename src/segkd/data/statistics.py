"""Color statistics, class frequencies and class weights of a dataset."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.cache import load_or_compute
from segkd.data.image_io import Array, LabelArray, read_bytes
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from segkd.utils.threads import thread_map


class ClassCounts(NamedTuple):
    """Counts for each of the K classes and, last, for void."""

    pixels: list[int]
    images_with: list[int]
    """Number of images that contain the class."""
    pixels_of_images: list[int]
    """All pixels, void included, of the images that contain the class."""
    ignored: Mapping[str, int] = {}
    """Ignored value of the label files, as messages name it → its pixels; empty if there are no files."""


class LabelCounts(NamedTuple):
    """Counts in one label."""

    pixels: npt.NDArray[np.int64]
    """Pixels of each of the K classes and, last, of void."""
    ignored: Mapping[str, int] = {}
    """As in `ClassCounts`."""


class ColorStatistics(NamedTuple):
    """Statistics over all pixels, RGB, 0..255."""

    mean: list[float]
    std: list[float]
    """Root of the mean squared deviation from `mean`; larger than the mean of the images' own deviations."""


def count_classes(dataset: SegmentationDataset, workers: int = 2, progress: str = "") -> ClassCounts:
    """Count the pixels of each class in a split; cached by the content of the label files.

    Args:
        dataset: The split.
        workers: Threads.
        progress: Text of the progress bar; empty for none.
    """

    def count_all() -> dict[str, Any]:
        indices = range(len(dataset))
        labels = thread_map(partial(count_label, dataset), indices, workers, progress)
        return sum_counts(labels, len(dataset.classes))._asdict()

    labels = [label for _, label in dataset.files] if isinstance(dataset, FileDataset) else []
    key = ["class_counts", 2, len(dataset.classes), sorted(dataset.label_map.items())]
    return ClassCounts(**_load_or_compute(key, labels, workers, count_all))


def count_label(dataset: SegmentationDataset, index: int) -> LabelCounts:
    """Count the pixels of each class in one label."""
    if not isinstance(dataset, FileDataset):
        return LabelCounts(_count_pixels(dataset, dataset.load_label(index)))
    values, path = dataset.load_label_values(index), dataset.files[index][1]
    return count_values(dataset, values, dataset.to_classes(values, path))


def count_values(dataset: FileDataset, values: LabelArray, classes: Array) -> LabelCounts:
    """Count the pixels of each class, and of each ignored value, in one label.

    Args:
        dataset: The dataset of the label.
        values: Values of the label file, H W.
        classes: The same as `dataset.to_classes` maps them.
    """
    ignored, counts = np.unique(values[classes == IGNORE_INDEX], return_counts=True)
    names = [dataset.format_values([value]) for value in ignored.tolist()]
    return LabelCounts(_count_pixels(dataset, classes), dict(zip(names, counts.tolist(), strict=True)))


def _count_pixels(dataset: SegmentationDataset, classes: Array) -> npt.NDArray[np.int64]:
    counts = np.bincount(classes.ravel(), minlength=256)
    return np.append(counts[: len(dataset.classes)], counts[IGNORE_INDEX])


def sum_counts(labels: Iterable[LabelCounts], num_classes: int) -> ClassCounts:
    """Add up the counts of labels of one dataset."""
    ignored: Counter[str] = Counter()
    rows = []
    for label in labels:
        rows.append(label.pixels)
        ignored.update(label.ignored)
    counts = np.array(rows, np.int64).reshape(len(rows), num_classes + 1)
    of_images = (counts.sum(1, keepdims=True) * (counts > 0)).sum(0)
    return ClassCounts(counts.sum(0).tolist(), (counts > 0).sum(0).tolist(), of_images.tolist(), dict(ignored))


def compute_color_statistics(dataset: SegmentationDataset, workers: int = 2, progress: str = "") -> ColorStatistics:
    """Compute mean and standard deviation of a split's colors; cached by the content of the image files.

    Args:
        dataset: The split.
        workers: Threads.
        progress: Text of the progress bar; empty for none.
    """

    def count_image(index: int) -> npt.NDArray[np.int64]:
        image = dataset[index].image
        return np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])

    def compute() -> dict[str, Any]:
        counts = sum(thread_map(count_image, range(len(dataset)), workers, progress), np.zeros((3, 256), np.int64))
        frequencies, values = counts / counts.sum(1, keepdims=True), np.arange(256)
        mean = frequencies @ values
        variance = (frequencies * (values - mean[:, None]) ** 2).sum(1)
        return ColorStatistics(mean.tolist(), np.sqrt(variance).tolist())._asdict()

    images = [image for image, _ in dataset.files] if isinstance(dataset, FileDataset) else []
    return ColorStatistics(**_load_or_compute(["color_statistics", 1], images, workers, compute))


def compute_class_weights(rule: str, counts: ClassCounts, void: bool = False) -> list[float]:
    """Compute class weights for the cross-entropy, larger for rare classes.

        enet               1 / ln(1.02 + p_c),  p_c: share of the labeled pixels      Paszke et al., 2016, 1606.02147
        median_frequency   median(f) / f_c,  f_c: share among all pixels, void included, of the images that contain the class
                           Badrinarayanan et al. (SegNet), 2015, 1511.00561, after Eigen & Fergus, 2015

    A class without pixels has weight 0 under `median_frequency`, and does not enter the median.

    Args:
        rule: `enet` or `median_frequency`.
        counts: Counts of the training split.
        void: Treat void as one more class, the last.

    Raises:
        UserError: No pixel is labeled.
    """
    last = None if void else -1
    pixels, of_images = (np.array(values[:last], float) for values in (counts.pixels, counts.pixels_of_images))
    if not pixels.sum():
        raise UserError(
            "no pixel of the training split is labeled, so its classes have no weights; use class_weights=null"
        )
    if rule == "enet":
        return [float(weight) for weight in 1 / np.log(1.02 + pixels / pixels.sum())]
    present = pixels > 0
    frequencies = pixels[present] / of_images[present]
    weights = np.zeros(len(pixels))
    weights[present] = np.median(frequencies) / frequencies
    return [float(weight) for weight in weights]


def _load_or_compute(
    key: list[Any], files: Sequence[Path], workers: int, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return a result from the user's cache, or compute and cache it; without files, always compute it.

    Args:
        key: Identifies the computation.
        files: Files whose content the result depends on.
        workers: Threads that hash the files.
        compute: The computation; its result is valid JSON.
    """
    if not files:
        return compute()
    hashes = [hashlib.sha256(json.dumps(key).encode()).digest(), *thread_map(_hash_file, files, workers, "")]
    return load_or_compute("statistics", hashlib.sha256(b"".join(hashes)).hexdigest(), compute)


def _hash_file(path: Path) -> bytes:
    return hashlib.sha256(read_bytes(path)).digest()
