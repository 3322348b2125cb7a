"""Classes of pixels: windows are those of an evaluation, and the confidence is the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.inference import infer_sliding_window, infer_whole_image
from segkd.predict.labeling import Labeling, predict_labels
from segkd.predict.pipeline import make_batches, predict_frames
from segkd.predict.sources import Frame
from segkd.types import IGNORE_INDEX

SIZE = (150, 170)


@pytest.fixture(scope="module")
def network() -> ESPNetC:
    """A network for 5 classes and void, whose probabilities spread."""
    torch.manual_seed(3)
    built = ESPNetC(6, Normalization((110, 110, 110), (55, 55, 55)), p=1, q=1).eval()
    with torch.no_grad():
        next(p for name, p in reversed([*built.named_parameters()]) if p.ndim == 4).mul_(300)
    return built


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_windows_give_the_labels_of_an_evaluation(network: ESPNetC, pixels: np.ndarray) -> None:
    images = to_tensor(pixels)
    labels = predict_labels(network, images, Labeling(5, (96, 64), 0.34))
    with torch.no_grad():
        for one, image in zip(labels, images.contiguous(), strict=True):
            logits = infer_sliding_window((96, 64), 0.34, network, image[None])
            assert np.array_equal(one, logits[:, :5].max(1).indices[0])
            assert not np.array_equal(one, infer_whole_image(network, image[None])[:, :5].max(1).indices[0])


@pytest.mark.parametrize("window", [None, (96, 64)])
def test_pixels_below_the_softmax_are_ignored(
    network: ESPNetC, pixels: np.ndarray, window: tuple[int, int] | None
) -> None:
    """The dataset's classes alone make up the probability; void, the sixth output, has no part in it."""
    images = to_tensor(pixels[:1])
    (plain,) = predict_labels(network, images, Labeling(5, window, 0.34))
    with torch.no_grad():
        infer = infer_whole_image if window is None else lambda *given: infer_sliding_window(window, 0.34, *given)
        logits = infer(network, images.contiguous())[0].double()
    confidence = logits[:5].softmax(0).max(0).values.numpy()
    smallest = float(np.median(confidence))
    (labels,) = predict_labels(network, images, Labeling(5, window, 0.34, smallest))
    is_clear = abs(confidence - smallest) > 1e-5
    assert np.array_equal(np.where(confidence < smallest, IGNORE_INDEX, plain)[is_clear], labels[is_clear])
    assert (labels == IGNORE_INDEX).mean() == pytest.approx(0.5, abs=0.01)
    with_void = logits.softmax(0)[:5].max(0).values.numpy()
    assert ((with_void < smallest) != (labels == IGNORE_INDEX)).any()


def test_confidence_is_the_same_in_one_window_and_in_any_batch(network: ESPNetC, pixels: np.ndarray) -> None:
    frames = [Frame(str(i), image) for i, image in enumerate(pixels)]
    results = [
        [
            prediction.labels["net"]
            for batch in predict_frames({"net": network}, make_batches(frames, size), Labeling(5, window, 0.34, 0.6))
            for prediction in batch
        ]
        for size, window in ((1, None), (3, None), (1, SIZE), (1, (400, 400)))
    ]
    assert all(np.array_equal(results[0], others) for others in results[1:])


def test_pixels_without_a_number_are_ignored() -> None:
    class Broken(ESPNetC):
        def forward_normalized(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            logits, features = super().forward_normalized(images)
            return logits * torch.nan, features

    network = Broken(6, Normalization((110, 110, 110), (55, 55, 55)), p=1, q=1).eval()
    (labels,) = predict_labels(network, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), Labeling(5, min_confidence=0.1))
    assert (labels == IGNORE_INDEX).all()
