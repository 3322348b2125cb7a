"""Confusion matrices of a network whose predictions are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.data.base import Sample, SegmentationDataset
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.models.base import Normalization, SegmentationModel
from segkd.types import IGNORE_INDEX, FeatureInfo


class CoarseNetwork(SegmentationModel):
    """A network with 2×3 logit maps for any image: class 1 in the middle column, 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__(2, Normalization((110, 110, 110), (55, 55, 55)), {"kd_logits": FeatureInfo(2, 8)})
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        score = self.weight * torch.tensor([-1.0, 0.5, -1.0]).expand(len(images), 1, 2, 3)
        logits = torch.cat([-score, score], 1)
        return logits, {"kd_logits": logits}


class SyntheticDataset(SegmentationDataset):
    """Images of 32×41 of class 0, the last two columns void; in image i, the first i rows are class 1."""

    classes = ("a", "b")
    splits = ("all",)

    def __len__(self) -> int:
        return 7

    def get_name(self, index: int) -> str:
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        label = np.zeros((32, 41), np.uint8)
        label[:index] = 1
        label[:, -2:] = IGNORE_INDEX
        return Sample(np.zeros((32, 41, 3), np.uint8), label)


@pytest.mark.parametrize(("align_corners", "middle"), [(True, range(14, 27)), (False, range(16, 25))])
def test_logits_are_resized_to_the_label_as_the_family_does(
    align_corners: bool, middle: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compute by hand: the 3 columns of a map lie at 0, 20, 40 of the image's 41 with aligned corners, else at 6.3, 20, 33.7; the score of
    class 1 rises from -1 to 0.5 between them, and crosses zero after two thirds of the way."""
    monkeypatch.setattr(CoarseNetwork, "align_corners", align_corners)
    network = CoarseNetwork().train()
    matrix = compute_confusion_matrix(network, SyntheticDataset("all"), limit=1)
    assert matrix.tolist() == [[32 * (39 - len(middle)), 32 * len(middle)], [0, 0]]
    assert network.training, "the network keeps its mode"


def test_limit_takes_evenly_spaced_images() -> None:
    def count_rows_of_class_1(limit: int | None) -> int:
        return int(compute_confusion_matrix(CoarseNetwork(), SyntheticDataset("all"), limit=limit).sum(1)[1]) // 39

    assert count_rows_of_class_1(None) == count_rows_of_class_1(9) == sum(range(7))
    assert count_rows_of_class_1(3) == 0 + 2 + 4
