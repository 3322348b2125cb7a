"""What networks say of a stream of images: read, labelled and shown at once, in batches, whatever its length in the same memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from segkd.data.image_io import Array
from segkd.models.base import SegmentationModel
from segkd.predict.sources import Frame
from segkd.types import resize

AHEAD = 2
"""Batches that a stage of the stream has ready before the next asks."""


class FramePrediction(NamedTuple):
    """A frame, and by network the classes that it sees there, H W."""

    frame: Frame
    labels: dict[str, Array]


Output = tuple[Callable[[FramePrediction], Array], Callable[[str, Array], None]]
"""How a labelled frame becomes a picture, and where the picture goes under the frame's name."""


def run_pipeline(
    frames: Iterable[Frame],
    networks: Mapping[str, SegmentationModel],
    num_classes: int,
    outputs: Sequence[Output],
    batch_size: int,
    title: str,
    length: int | None = None,
) -> int:
    """Let networks label frames, and show them in every way asked for, with a progress bar on stderr; how many there were.

    While a batch is labelled, the one before is shown and the next is read.
    """
    labelled = prefetch(predict_frames(networks, prefetch(make_batches(frames, batch_size)), num_classes))
    console, number = Console(stderr=True), 0
    for one in track((one for batch in labelled for one in batch), title, length, console=console):
        for picture, write in outputs:
            write(one.frame.name, picture(one))
        number += 1
    return number


def predict_frames(
    networks: Mapping[str, SegmentationModel], batches: Iterable[Sequence[Frame]], num_classes: int
) -> Iterator[list[FramePrediction]]:
    """The first `num_classes` outputs of each network compete for every pixel, as in an evaluation that ignores void.

    An image with a side less than a network takes is enlarged for it; labels have the image's size. On a CPU as many batches are
    labelled at once as PyTorch has threads, each by one of them: several threads for one image help a small network little.
    """
    on_cpu = all(next(network.parameters()).device.type == "cpu" for network in networks.values())
    workers = torch.get_num_threads() if on_cpu else 1
    return _thread_map(lambda batch: predict_batch(networks, batch, num_classes), batches, workers)


def predict_batch(
    networks: Mapping[str, SegmentationModel], batch: Sequence[Frame], num_classes: int
) -> list[FramePrediction]:
    """The same for frames of one size, by the thread that calls."""
    images = torch.from_numpy(np.stack([frame.image for frame in batch])).permute(0, 3, 1, 2)
    said = {name: _labels(network, images, num_classes) for name, network in networks.items()}
    return [FramePrediction(frame, {name: maps[i] for name, maps in said.items()}) for i, frame in enumerate(batch)]


def make_batches(frames: Iterable[Frame], batch_size: int) -> Iterator[list[Frame]]:
    """Frames in lists of up to `batch_size`, in their order; those in one list have one size."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == batch_size or frame.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


T = TypeVar("T")
U = TypeVar("U")
_END = object()


def prefetch(items: Iterable[T], depth: int = AHEAD) -> Iterator[T]:
    """The same items, made by a thread that is up to `depth` of them ahead; its errors are raised here."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield cast("T", item)
    finally:
        pool.shutdown(cancel_futures=True)


def _thread_map(work: Callable[[T], U], items: Iterable[T], workers: int) -> Iterator[U]:
    """What `work` makes of each item, in their order; `workers` are worked on at once, each by one thread of PyTorch."""
    if workers == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1))  # of the worker itself alone
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@torch.inference_mode()
def _labels(network: SegmentationModel, images: Tensor, num_classes: int) -> list[Array]:
    """Classes, H W, of each of B 3 H W uint8 images."""
    device = next(network.parameters()).device
    size = (images.shape[-2], images.shape[-1])
    images = images.to(device)
    least = (max(size[0], network.min_size), max(size[1], network.min_size))
    if least != size:
        images = F.interpolate(images.float(), size=least, mode="bilinear", align_corners=False)
    logits, _, align_corners = network(images)
    # One image at a time: enlarged, the scores of a batch would be most of the memory.
    enlarged = (resize(one[None, :num_classes], size, align_corners) for one in logits)
    return [one[0].max(0).indices.byte().cpu().numpy() for one in enlarged]
