"""The prediction pipeline: read, predict and write frames concurrently, in batches, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch

from segkd.data.image_io import Array
from segkd.models.base import SegmentationModel
from segkd.predict.labeling import Labeling, predict_labels
from segkd.predict.sources import Frame
from segkd.types import IGNORE_INDEX
from segkd.utils.progress import track

PREFETCH = 2
"""Batches that a stage of the pipeline prepares in advance."""


class FramePrediction(NamedTuple):
    """A frame, and the class indices (H W) that each network predicts for it."""

    frame: Frame
    labels: dict[str, Array]


Output = Callable[[FramePrediction], None]
"""Renders a prediction and writes it."""


class Totals(NamedTuple):
    """What was predicted."""

    frames: int
    unsure: dict[str, float]
    """Network → fraction of all pixels that are below the smallest confidence."""


def run_pipeline(
    frames: Iterable[Frame],
    networks: Mapping[str, SegmentationModel],
    labeling: Labeling,
    outputs: Sequence[Output],
    batch_size: int,
    title: str,
    length: int | None = None,
) -> Totals:
    """Predict and write frames, with a progress bar on stderr.

    While a batch is predicted, the previous one is written and the next one is read. In windows, which are for large images,
    one image is read, predicted and written after the other, so that their memory does not add up.

    Args:
        frames: the frames.
        networks: name → network.
        labeling: how the classes of pixels are chosen.
        outputs: each gets every frame.
        batch_size: largest number of frames per forward pass.
        title: text beside the progress bar.
        length: number of frames, if known.
    """
    if labeling.window is None:
        batches = prefetch(predict_frames(networks, prefetch(make_batches(frames, batch_size)), labeling))
    else:
        batches = predict_frames(networks, make_batches(frames, 1), labeling)
    count, pixels, unsure = 0, 0, dict.fromkeys(networks, 0)
    for prediction in track((one for batch in batches for one in batch), title, length):
        for output in outputs:
            output(prediction)
        count += 1
        if labeling.min_confidence is not None:
            pixels += prediction.frame.image[..., 0].size
            for name, labels in prediction.labels.items():
                unsure[name] += int(np.count_nonzero(labels == IGNORE_INDEX))
    return Totals(count, {name: number / max(pixels, 1) for name, number in unsure.items()})


def predict_frames(
    networks: Mapping[str, SegmentationModel], batches: Iterable[Sequence[Frame]], labeling: Labeling
) -> Iterator[list[FramePrediction]]:
    """Predict batches of frames; the classes compete, as in an evaluation with void=ignored.

    Images smaller than a network's minimum are enlarged for it; labels have the image's size. On a CPU as many batches
    run in parallel as PyTorch has threads, one thread each: several threads per image help a small network little. Windows
    follow each other, so that large images do not add up.
    """
    on_cpu = all(next(network.parameters()).device.type == "cpu" for network in networks.values())
    workers = torch.get_num_threads() if on_cpu and labeling.window is None else 1
    return _map_in_threads(lambda batch: predict_batch(networks, batch, labeling), batches, workers)


def predict_batch(
    networks: Mapping[str, SegmentationModel], batch: Sequence[Frame], labeling: Labeling
) -> list[FramePrediction]:
    """Predict frames of one size in the calling thread."""
    images = torch.from_numpy(np.stack([frame.image for frame in batch])).permute(0, 3, 1, 2)
    labels = {name: predict_labels(network, images, labeling) for name, network in networks.items()}
    return [FramePrediction(frame, {name: maps[i] for name, maps in labels.items()}) for i, frame in enumerate(batch)]


def make_batches(frames: Iterable[Frame], batch_size: int) -> Iterator[list[Frame]]:
    """Yield lists of up to `batch_size` consecutive frames of one size."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and frame.image.shape != batch[0].image.shape:
            yield batch
            batch = []
        batch.append(frame)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


T = TypeVar("T")
R = TypeVar("R")
_END = object()


def prefetch(items: Iterable[T], depth: int = PREFETCH) -> Iterator[T]:
    """Yield the items, which a thread produces up to `depth` in advance; its errors are raised here."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(1)
    try:
        pending = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, iterator, _END))
            yield cast("T", item)
    finally:
        pool.shutdown(cancel_futures=True)


def _map_in_threads(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the function's results in order; `workers` items are processed at once, each by one thread of PyTorch."""
    if workers == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1))  # of the worker thread alone
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
