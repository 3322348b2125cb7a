"""The stream: the same labels in any batches, in a memory that does not grow."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.espnet import ESPNet
from segkd.predict.pipeline import AHEAD, FramePrediction, make_batches, predict_frames, prefetch, run_pipeline
from segkd.predict.sources import Frame
from segkd.types import FeatureInfo


class Brightest(SegmentationModel):
    """Says, at half the size, which channel is strongest; a fourth class, void, is surer than all."""

    def __init__(self) -> None:
        super().__init__(4, Normalization((0, 0, 0), (1, 1, 1)), {"scores": FeatureInfo(4, 2)})
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        assert not self.training
        assert not torch.is_grad_enabled()
        colors = torch.nn.functional.avg_pool2d(images, 2)
        logits = torch.cat([colors, torch.full_like(colors[:, :1], 1e6)], 1)
        return logits, {"scores": logits}


def scenes(sizes: list[tuple[int, int]]) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [Frame(f"{i}", rng.integers(0, 256, (*size, 3), np.uint8)) for i, size in enumerate(sizes)]


def test_batches_hold_one_size_and_keep_the_order() -> None:
    frames = scenes([(4, 4)] * 5 + [(4, 6)] + [(4, 4)] * 2)
    assert [[frame.name for frame in batch] for batch in make_batches(frames, 2)] == [
        ["0", "1"], ["2", "3"], ["4"], ["5"], ["6", "7"],
    ]  # fmt: skip
    assert [*make_batches([], 2)] == []


def test_by_hand_and_void_is_no_answer() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32, 1] = 200
    image[:, 32:, 2] = 200
    ((one,),) = predict_frames({"net": Brightest().eval()}, [[Frame("a", image)]], 3)
    assert one.labels["net"].dtype == np.uint8
    assert np.array_equal(one.labels["net"], np.repeat([[1] * 32 + [2] * 32], 32, 0))
    ((one,),) = predict_frames({"net": Brightest().eval()}, [[Frame("a", image)]], 4)
    assert (one.labels["net"] == 3).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 47)])
def test_images_too_small_or_odd_have_labels_of_their_size(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2] = 90
    ((one,),) = predict_frames({"net": Brightest().eval()}, [[Frame("a", image)]], 3)
    assert one.labels["net"].shape == size
    assert (one.labels["net"] == 2).all()


def test_labels_do_not_depend_on_the_batch(normalization: Normalization) -> None:
    network = ESPNet(11, normalization, p=1, q=1).eval()
    frames = scenes([(96, 128)] * 7)
    alone, together = (
        [
            one.labels["net"]
            for batch in predict_frames({"net": network}, make_batches(frames, size), 11)
            for one in batch
        ]
        for size in (1, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not np.array_equal(alone[0], alone[1])


def test_ahead_keeps_order_raises_errors_and_is_no_further_than_it_may() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i
        raise LookupError("the end")

    seen: list[int] = []

    def watch() -> None:
        for i in prefetch(numbers(), 3):
            seen.append(i)
            assert len(made) <= i + 1 + 3 + 1

    with pytest.raises(LookupError, match="the end"):
        watch()
    assert seen == [*range(50)]
    made.clear()
    stream = prefetch(numbers(), 3)
    assert next(stream) == 0
    stream.close()
    assert len(made) <= 5


def most_alive(keep: bool) -> int:
    """How many frames of 200 exist at once while they are shown; all that are shown, if somebody keeps them."""
    alive, most = 0, 0
    kept: list[FramePrediction] = []

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[Frame]:
        nonlocal alive, most
        for i in range(200):
            image = np.zeros((32, 32, 3), np.uint8)
            weakref.finalize(image, gone)
            alive += 1
            most = max(most, alive)
            yield Frame(f"{i}", image)

    def picture(one: FramePrediction) -> np.ndarray:
        if keep:
            kept.append(one)
        return one.labels["net"]

    written: list[str] = []
    write = lambda name, _: written.append(name)  # noqa: E731
    assert run_pipeline(frames(), {"net": Brightest().eval()}, 3, [(picture, write)], 4, "") == 200
    assert written == [f"{i}" for i in range(200)]
    gc.collect()
    return most


def test_memory_does_not_grow_with_the_stream() -> None:
    stages = 2  # each has so many batches ready, one in hand, and one that it was asked for
    assert most_alive(keep=False) <= 4 * (stages * (AHEAD + 2) + 1)
    assert most_alive(keep=True) == 200
