"""What the pixels of a data set are like: mean and deviation of the colours, frequencies of the classes, and weights from these."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.image_io import read_bytes
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from segkd.utils.files import atomic_write
from segkd.utils.threads import thread_map


class ClassCounts(NamedTuple):
    """Of each of the K classes, and, last, of void."""

    pixels: list[int]
    images_with: list[int]
    """How many have the class."""
    pixels_of_images: list[int]
    """All pixels, void too, of the images that have the class."""


class ColorStatistics(NamedTuple):
    """RGB, 0..255, over all pixels."""

    mean: list[float]
    std: list[float]
    """The root of the mean squared deviation from `mean`; not the mean of the images' own, which is less."""


def count_classes(dataset: SegmentationDataset, workers: int = 2, progress: str = "") -> ClassCounts:
    """The pixels of each class in a split; from the cache where the same label files were counted before."""
    classes = len(dataset.classes)

    def of_image(index: int) -> npt.NDArray[np.int64]:
        found = np.bincount(dataset.label(index).ravel(), minlength=256)
        return np.append(found[:classes], found[IGNORE_INDEX])

    def count() -> dict[str, Any]:
        counts = np.stack(list(thread_map(of_image, range(len(dataset)), workers, progress)))
        of_images = (counts.sum(1, keepdims=True) * (counts > 0)).sum(0)
        return ClassCounts(counts.sum(0).tolist(), (counts > 0).sum(0).tolist(), of_images.tolist())._asdict()

    labels = [label for _, label in dataset.files] if isinstance(dataset, FileDataset) else []
    meaning = ["class_counts", 1, classes, sorted(dataset.ids.items())]
    return ClassCounts(**_cached(meaning, labels, workers, count))


def compute_color_statistics(dataset: SegmentationDataset, workers: int = 2, progress: str = "") -> ColorStatistics:
    """Mean and standard deviation of a split's colours; from the cache where the same image files were measured before."""

    def of_image(index: int) -> npt.NDArray[np.int64]:
        image = dataset[index].image
        return np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])

    def measure() -> dict[str, Any]:
        counts = sum(thread_map(of_image, range(len(dataset)), workers, progress), np.zeros((3, 256), np.int64))
        shares, values = counts / counts.sum(1, keepdims=True), np.arange(256)
        mean = shares @ values
        variance = (shares * (values - mean[:, None]) ** 2).sum(1)
        return ColorStatistics(mean.tolist(), np.sqrt(variance).tolist())._asdict()

    images = [image for image, _ in dataset.files] if isinstance(dataset, FileDataset) else []
    return ColorStatistics(**_cached(["color_statistics", 1], images, workers, measure))


def compute_class_weights(rule: str, counts: ClassCounts, void: bool = False) -> list[float]:
    """Weights of the classes for the cross-entropy, rare ones above common ones; of void too, as one class more, if wanted.

        enet               1 / ln(1.02 + p_c),  p_c: share of the counted pixels      Paszke et al., 2016, 1606.02147
        median_frequency   median(f) / f_c,  f_c: share among the pixels (void too) of the images that have the class
                           Badrinarayanan et al. (SegNet), 2015, 1511.00561, after Eigen & Fergus, 2015

    A class that is nowhere weighs 0 by the median and is none of its frequencies.

    Raises:
        UserError: no pixel is labelled.
    """
    last = None if void else -1
    pixels, of_images = (np.array(values[:last], float) for values in (counts.pixels, counts.pixels_of_images))
    if not pixels.sum():
        raise UserError(
            "no pixel of the training split is labelled, so its classes have no weights; use class_weights=null"
        )
    if rule == "enet":
        return [float(weight) for weight in 1 / np.log(1.02 + pixels / pixels.sum())]
    there = pixels > 0
    frequencies = pixels[there] / of_images[there]
    weights = np.zeros(len(pixels))
    weights[there] = np.median(frequencies) / frequencies
    return [float(weight) for weight in weights]


def _cached(
    meaning: list[Any], files: Sequence[Path], workers: int, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The answer to a question about the content of files, kept in the user's cache; without files always anew."""
    if not files:
        return compute()
    contents = [hashlib.sha256(json.dumps(meaning).encode()).digest(), *thread_map(_digest, files, workers, "")]
    kept = _cache() / f"{hashlib.sha256(b''.join(contents)).hexdigest()}.json"
    with suppress(OSError, ValueError):
        answer: dict[str, Any] = json.loads(kept.read_bytes())
        return answer
    computed = compute()
    with suppress(OSError, UserError):  # a cache that cannot be written costs time alone
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as part:
            part.write_text(json.dumps(computed))
    return computed


def _digest(path: Path) -> bytes:
    return hashlib.sha256(read_bytes(path)).digest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segkd" / "statistics"
