"""The prediction pipeline: the same labels for any batch size, in constant memory."""

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
from segkd.predict.labeling import Labeling
from segkd.predict.pipeline import PREFETCH, FramePrediction, make_batches, predict_frames, prefetch, run_pipeline
from segkd.predict.sources import Frame
from segkd.types import FeatureInfo


class StrongestChannel(SegmentationModel):
    """Predict the strongest channel, at half the size; a fourth output, void, has the largest logit."""

    def __init__(self) -> None:
        super().__init__(4, Normalization((0, 0, 0), (1, 1, 1)), {"kd_logits": FeatureInfo(4, 2)})
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        assert not self.training
        assert not torch.is_grad_enabled()
        colors = torch.nn.functional.avg_pool2d(images, 2)
        logits = torch.cat([colors, torch.full_like(colors[:, :1], 1e6)], 1)
        return logits, {"kd_logits": logits}


def make_frames(sizes: list[tuple[int, int]]) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [Frame(f"{i}", rng.integers(0, 256, (*size, 3), np.uint8)) for i, size in enumerate(sizes)]


def test_batches_contain_one_size_in_order() -> None:
    frames = make_frames([(4, 4)] * 5 + [(4, 6)] + [(4, 4)] * 2)
    assert [[frame.name for frame in batch] for batch in make_batches(frames, 2)] == [
        ["0", "1"], ["2", "3"], ["4"], ["5"], ["6", "7"],
    ]  # fmt: skip
    assert [*make_batches([], 2)] == []


def test_only_the_given_classes_compete() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32, 1] = 200
    image[:, 32:, 2] = 200
    ((prediction,),) = predict_frames({"net": StrongestChannel().eval()}, [[Frame("a", image)]], Labeling(3))
    assert prediction.labels["net"].dtype == np.uint8
    assert np.array_equal(prediction.labels["net"], np.repeat([[1] * 32 + [2] * 32], 32, 0))
    ((prediction,),) = predict_frames({"net": StrongestChannel().eval()}, [[Frame("a", image)]], Labeling(4))
    assert (prediction.labels["net"] == 3).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 47)])
def test_labels_have_the_size_of_small_and_odd_images(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2] = 90
    ((prediction,),) = predict_frames({"net": StrongestChannel().eval()}, [[Frame("a", image)]], Labeling(3))
    assert prediction.labels["net"].shape == size
    assert (prediction.labels["net"] == 2).all()


def test_labels_do_not_depend_on_the_batch_size(normalization: Normalization) -> None:
    network = ESPNet(11, normalization, p=1, q=1).eval()
    frames = make_frames([(96, 128)] * 7)
    single, batched = (
        [
            prediction.labels["net"]
            for batch in predict_frames({"net": network}, make_batches(frames, size), Labeling(11))
            for prediction in batch
        ]
        for size in (1, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(single, batched, strict=True))
    assert not np.array_equal(single[0], single[1])


def test_prefetch_keeps_order_and_depth_and_raises_errors() -> None:
    produced: list[int] = []

    def produce_numbers() -> Iterator[int]:
        for i in range(50):
            produced.append(i)
            yield i
        raise LookupError("the end")

    consumed: list[int] = []

    def consume() -> None:
        for i in prefetch(produce_numbers(), 3):
            consumed.append(i)
            assert len(produced) <= i + 1 + 3 + 1

    with pytest.raises(LookupError, match="the end"):
        consume()
    assert consumed == [*range(50)]
    produced.clear()
    stream = prefetch(produce_numbers(), 3)
    assert next(stream) == 0
    stream.close()
    assert len(produced) <= 5


def count_frames_alive(keep: bool, window: tuple[int, int] | None = None) -> int:
    """Return how many of 200 frames exist at once; with `keep`, the renderer holds on to all of them."""
    alive, peak = 0, 0
    kept: list[FramePrediction] = []

    def release() -> None:
        nonlocal alive
        alive -= 1

    def generate_frames() -> Iterator[Frame]:
        nonlocal alive, peak
        for i in range(200):
            image = np.zeros((32, 32, 3), np.uint8)
            weakref.finalize(image, release)
            alive += 1
            peak = max(peak, alive)
            yield Frame(f"{i}", image)

    written: list[str] = []

    def write(prediction: FramePrediction) -> None:
        if keep:
            kept.append(prediction)
        written.append(prediction.frame.name)

    labeling = Labeling(3, window)
    totals = run_pipeline(generate_frames(), {"net": StrongestChannel().eval()}, labeling, [write], 4, "")
    assert totals == (200, {"net": 0.0})
    assert written == [f"{i}" for i in range(200)]
    gc.collect()
    return peak


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    stages = 2  # each has PREFETCH batches ready, one in work, and one requested
    assert count_frames_alive(keep=False) <= 4 * (stages * (PREFETCH + 2) + 1)
    assert count_frames_alive(keep=False, window=(32, 32)) <= 2, "the one at work, and the one before"
    assert count_frames_alive(keep=True) == 200
