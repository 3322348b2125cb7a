"""Images smaller than a network takes: predicted, scored and validated alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segkd.data.base import Sample
from segkd.data.streets import Streets
from segkd.distillation.distiller import Distiller
from segkd.distillation.schedules import Poly
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization
from segkd.models.ensemble import ClassRemap, Ensemble
from segkd.models.espnet import ESPNet
from segkd.models.inference import infer_whole_image
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.models.pspnet import PSPNet
from segkd.predict.labeling import Labeling
from segkd.predict.pipeline import predict_batch
from segkd.predict.sources import Frame
from segkd.types import Batch


class SmallImages(Streets):
    """Streets, of which all but the first image are smaller than a network takes."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image, label = super().__getitem__(index)
        height, width = ((64, 48), (20, 50), (50, 7), (1, 1))[index]
        return Sample(image[:height, :width], label[:height, :width])


@pytest.fixture
def network() -> ESPNet:
    return ESPNet(11, Normalization(Streets.mean, Streets.std), p=1, q=1).eval()


def count(predicted: list[np.ndarray], dataset: Streets) -> torch.Tensor:
    matrix = torch.zeros(11, 11, dtype=torch.int64)
    for labels, i in zip(predicted, range(len(dataset)), strict=True):
        truth = dataset[i].label
        for true, guess in zip(truth[truth < 11], labels[truth < 11], strict=True):
            matrix[int(true), int(guess)] += 1
    return matrix


def test_scores_are_those_of_the_predicted_labels(network: ESPNet) -> None:
    dataset = SmallImages("val", images=4)
    frames = [Frame(str(i), np.ascontiguousarray(dataset[i].image)) for i in range(4)]
    predicted = [predict_batch({"": network}, [frame], Labeling(11))[0].labels[""] for frame in frames]
    expected = count(predicted, dataset)
    assert torch.equal(compute_confusion_matrix(network, dataset), expected)

    losses = LossSum({"cross_entropy": CrossEntropy()})
    losses.setup(network.features, None)
    distiller = Distiller(network, None, losses, None, {}, Poly(), 1, Streets.classes).eval()
    for i in range(4):
        image, label = (torch.from_numpy(np.ascontiguousarray(array)) for array in dataset[i])
        batch = Batch(image.permute(2, 0, 1)[None], label.long()[None], label[None] < 11, torch.zeros(1).long())
        with torch.no_grad():
            distiller.validation_step(batch, i)
    assert torch.equal(distiller.confusion.compute(), expected)


def test_large_images_are_left_alone(network: ESPNet) -> None:
    for size in ((32, 32), (33, 500)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        assert enlarge_to_minimum(images, network) is images


def test_only_the_side_that_is_too_small_is_enlarged(network: ESPNet) -> None:
    images = torch.randint(0, 256, (2, 3, 20, 50), dtype=torch.uint8)
    enlarged = enlarge_to_minimum(images, network)
    assert torch.equal(enlarged, F.interpolate(images.float(), (32, 50), mode="bilinear", align_corners=False))


def test_wrapped_networks_need_what_their_members_need(network: ESPNet) -> None:
    pspnet = PSPNet(11, Normalization(Streets.mean, Streets.std), depth=18, width=8, pyramid=8).eval()
    remap = ClassRemap(pspnet, {name: [name_id] for name_id, name in enumerate(Streets.classes)}, Streets.classes)
    for wrapped in (remap, Ensemble({"a": network, "b": remap}).eval()):
        assert wrapped.min_size == pspnet.min_size > network.min_size
        assert infer_whole_image(wrapped, torch.zeros(1, 3, 32, 8)).shape == (1, 11, 32, 8)
