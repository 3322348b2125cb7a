"""Class maps and ensembles, against hand-computed values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.ensemble import ClassRemap, Ensemble
from segkd.models.espnet import ESPNetC
from segkd.types import FeatureInfo

IDENTITY = Normalization((0, 0, 0), (1, 1, 1))
CLASSES = ("road", "car")


class ConstantNetwork(SegmentationModel):
    """A network with given probabilities at every pixel."""

    align_corners = False

    def __init__(self, *probabilities: float, side: int = 2) -> None:
        super().__init__(
            len(probabilities),
            IDENTITY,
            {"encoder": FeatureInfo(3, 1), "kd_logits": FeatureInfo(len(probabilities), 1)},
        )
        self.logits = torch.tensor(probabilities).log().view(1, -1, 1, 1).expand(-1, -1, side, side) + 5.0

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.logits, {"encoder": images, "kd_logits": self.logits}


def compute_probabilities(network: SegmentationModel) -> list[float]:
    outputs = network(torch.zeros(1, 3, 32, 32))
    assert torch.equal(outputs.features["kd_logits"], outputs.logits)
    return outputs.logits.softmax(1)[0, :, 0, 0].tolist()


def test_network_without_kd_logits_is_named() -> None:
    network = ConstantNetwork(0.5, 0.5)
    del network.features["kd_logits"]
    for build in (lambda: Ensemble({"a": network}), lambda: ClassRemap(network, {"road": [0], "car": [1]}, CLASSES)):
        with pytest.raises(UserError, match="ConstantNetwork has no feature 'kd_logits'"):
            build()


def test_merged_classes_sum_their_probabilities() -> None:
    network = ClassRemap(ConstantNetwork(0.1, 0.2, 0.3, 0.4), {"road": [3, 0], "car": [1, 2]}, CLASSES)
    assert compute_probabilities(network) == pytest.approx([0.5, 0.5])
    assert network.num_classes == network.features["kd_logits"].channels == 2


def test_unmapped_classes_are_dropped_and_the_rest_renormalized() -> None:
    network = ClassRemap(ConstantNetwork(0.1, 0.2, 0.3, 0.4), {"car": [1], "road": [2]}, CLASSES)
    assert compute_probabilities(network) == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"road": [0, 1]}, "leaves out car"),
        ({"road": [0, 1], "car": []}, "leaves out car"),
        ({"road": [0, 1], "car": [1, 2]}, "has 1 in two classes"),
        ({"road": [0, 0], "car": [1]}, "has 0 in two classes"),
        ({"road": [0], "car": [4]}, "has 4; the network's classes are 0 to 3"),
        ({"road": [0], "car": [-1]}, "has -1; the network's"),
        ({"road": [0], "car": [1], "bus": [2]}, "names bus; the classes are road, car"),
    ],
)
def test_invalid_class_map_is_an_error(class_map: dict[str, list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassRemap(ConstantNetwork(0.1, 0.2, 0.3, 0.4), class_map, CLASSES)


def test_ensemble_averages_probabilities() -> None:
    members: dict[str, SegmentationModel] = {"a": ConstantNetwork(0.9, 0.1), "b": ConstantNetwork(0.5, 0.5)}
    assert compute_probabilities(Ensemble(members)) == pytest.approx([0.7, 0.3])
    assert compute_probabilities(Ensemble(members, {"a": 3})) == pytest.approx([0.8, 0.2])
    assert compute_probabilities(Ensemble(members, {"a": 0})) == pytest.approx([0.5, 0.5])


def test_members_may_have_a_class_map_and_another_size() -> None:
    other = ClassRemap(ConstantNetwork(0.2, 0.2, 0.6, side=4), {"road": [0, 1], "car": [2]}, CLASSES)
    network = Ensemble({"a": ConstantNetwork(0.8, 0.2), "b": other})
    assert compute_probabilities(network) == pytest.approx([0.6, 0.4])
    assert network(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 2, 2, 2)


def test_probability_zero_gives_finite_logits() -> None:
    network = Ensemble({"a": ConstantNetwork(1.0, 0.0), "b": ConstantNetwork(1.0, 0.0)})
    logits = network(torch.zeros(1, 3, 32, 32)).logits
    assert logits.isfinite().all()
    assert compute_probabilities(network) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ({}, {}, "an ensemble has members"),
        ({"a": ConstantNetwork(0.5, 0.5)}, {"b": 1.0}, "no member b; the members are a"),
        ({"a": ConstantNetwork(0.5, 0.5)}, {"a": 0.0}, "must be positive"),
        ({"a": ConstantNetwork(0.5, 0.5), "b": ConstantNetwork(0.5, 0.5)}, {"b": -1.0}, "must be positive"),
        (
            {"a": ConstantNetwork(0.5, 0.5), "b": ConstantNetwork(0.2, 0.3, 0.5)},
            {},
            r"unequal classes \(a 2, b 3\); give class_map",
        ),
    ],
)
def test_invalid_members_are_errors(members: dict[str, Any], weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ensemble(members, weights)


def test_members_keep_their_own_normalization() -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    networks = [ESPNetC(5, Normalization((m, m, m), (50, 50, 50)), p=1, q=1).eval() for m in (0.0, 120.0)]
    with torch.no_grad():
        ensemble = Ensemble({"a": networks[0], "b": networks[1]}).eval()(images).logits.exp()
        single = [network(images).logits.softmax(1) for network in networks]
    torch.testing.assert_close(ensemble, (single[0] + single[1]) / 2)
