"""The prediction pipeline: read, predict and render frames concurrently, in batches, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from segkd.data.image_io import Array
from segkd.models.base import SegmentationModel
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.predict.frame_times import FrameTime
from segkd.predict.sources import Frame
from segkd.types import resize
from segkd.utils.progress import track

PREFETCH = 2
"""Batches that a stage of the pipeline prepares in advance."""


class FramePrediction(NamedTuple):
    """A frame, and the class indices (H W) that each network predicts for it."""

    frame: Frame
    labels: dict[str, Array]


Output = tuple[Callable[[FramePrediction], Array], Callable[[str, Array, FrameTime | None], None]]
"""A renderer, and a writer that takes the frame's name, the rendered image and the frame's time."""


def run_pipeline(
    frames: Iterable[Frame],
    networks: Mapping[str, SegmentationModel],
    num_classes: int,
    outputs: Sequence[Output],
    batch_size: int,
    title: str,
    length: int | None = None,
) -> int:
    """Predict, render and write frames, with a progress bar on stderr; return their number.

    While a batch is predicted, the previous one is rendered and the next one is read.

    Args:
        frames: the frames.
        networks: name → network.
        num_classes: number of classes; further outputs of a network, such as void, are ignored.
        outputs: renderers and writers; each gets every frame.
        batch_size: largest number of frames per forward pass.
        title: text beside the progress bar.
        length: number of frames, if known.
    """
    batches = prefetch(predict_frames(networks, prefetch(make_batches(frames, batch_size)), num_classes))
    count = 0
    for prediction in track((one for batch in batches for one in batch), title, length):
        for render, write in outputs:
            write(prediction.frame.name, render(prediction), prediction.frame.time)
        count += 1
    return count


def predict_frames(
    networks: Mapping[str, SegmentationModel], batches: Iterable[Sequence[Frame]], num_classes: int
) -> Iterator[list[FramePrediction]]:
    """Predict batches of frames from the first `num_classes` outputs, as an evaluation with void=ignored does.

    Images smaller than a network's minimum are enlarged for it; labels have the image's size. On a CPU as many batches
    run in parallel as PyTorch has threads, one thread each: several threads per image help a small network little.
    """
    on_cpu = all(next(network.parameters()).device.type == "cpu" for network in networks.values())
    workers = torch.get_num_threads() if on_cpu else 1
    return _map_in_threads(lambda batch: predict_batch(networks, batch, num_classes), batches, workers)


def predict_batch(
    networks: Mapping[str, SegmentationModel], batch: Sequence[Frame], num_classes: int
) -> list[FramePrediction]:
    """Predict frames of one size in the calling thread."""
    images = torch.from_numpy(np.stack([frame.image for frame in batch])).permute(0, 3, 1, 2)
    labels = {name: _predict_labels(network, images, num_classes) for name, network in networks.items()}
    return [FramePrediction(frame, {name: maps[i] for name, maps in labels.items()}) for i, frame in enumerate(batch)]


def make_batches(frames: Iterable[Frame], batch_size: int) -> Iterator[list[Frame]]:
    """Yield lists of up to `batch_size` consecutive frames of one size."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == batch_size or frame.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(frame)
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


@torch.inference_mode()
def _predict_labels(network: SegmentationModel, images: Tensor, num_classes: int) -> list[Array]:
    """Return the class indices, H W, of each of B 3 H W uint8 images."""
    device = next(network.parameters()).device
    size = (images.shape[-2], images.shape[-1])
    logits, _, align_corners = network(enlarge_to_minimum(images.to(device), network))
    # One image at a time: at full size, the logits of a batch would take most of the memory.
    resized = (resize(one[None, :num_classes], size, align_corners) for one in logits)
    return [one[0].max(0).indices.byte().cpu().numpy() for one in resized]
