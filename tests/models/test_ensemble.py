"""Class maps and several teachers, by hand."""

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

PLAIN = Normalization((0, 0, 0), (1, 1, 1))
CLASSES = ("road", "car")


class Says(SegmentationModel):
    """Answers with given probabilities at every pixel."""

    align_corners = False

    def __init__(self, *probabilities: float, side: int = 2) -> None:
        super().__init__(
            len(probabilities), PLAIN, {"encoder": FeatureInfo(3, 1), "kd_logits": FeatureInfo(len(probabilities), 1)}
        )
        self.answer = torch.tensor(probabilities).log().view(1, -1, 1, 1).expand(-1, -1, side, side) + 5.0

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.answer, {"encoder": images, "kd_logits": self.answer}


def probabilities(network: SegmentationModel) -> list[float]:
    outputs = network(torch.zeros(1, 3, 32, 32))
    assert torch.equal(outputs.features["kd_logits"], outputs.logits)
    return outputs.logits.softmax(1)[0, :, 0, 0].tolist()


def test_classes_that_are_gathered_add_their_probabilities() -> None:
    network = ClassRemap(Says(0.1, 0.2, 0.3, 0.4), {"road": [3, 0], "car": [1, 2]}, CLASSES)
    assert probabilities(network) == pytest.approx([0.5, 0.5])
    assert network.num_classes == network.features["kd_logits"].channels == 2


def test_classes_that_are_none_of_ours_leave_the_others_in_proportion() -> None:
    network = ClassRemap(Says(0.1, 0.2, 0.3, 0.4), {"car": [1], "road": [2]}, CLASSES)
    assert probabilities(network) == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize(
    ("class_map", "said"),
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
def test_a_wrong_class_map_is_refused(class_map: dict[str, list[int]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ClassRemap(Says(0.1, 0.2, 0.3, 0.4), class_map, CLASSES)


def test_two_teachers_answer_with_the_mean_of_their_probabilities() -> None:
    members: dict[str, SegmentationModel] = {"a": Says(0.9, 0.1), "b": Says(0.5, 0.5)}
    assert probabilities(Ensemble(members)) == pytest.approx([0.7, 0.3])
    assert probabilities(Ensemble(members, {"a": 3})) == pytest.approx([0.8, 0.2])
    assert probabilities(Ensemble(members, {"a": 0})) == pytest.approx([0.5, 0.5])


def test_one_of_them_may_have_other_classes_and_another_size() -> None:
    other = ClassRemap(Says(0.2, 0.2, 0.6, side=4), {"road": [0, 1], "car": [2]}, CLASSES)
    network = Ensemble({"a": Says(0.8, 0.2), "b": other})
    assert probabilities(network) == pytest.approx([0.6, 0.4])
    assert network(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 2, 2, 2)


def test_certainty_stays_finite() -> None:
    network = Ensemble({"a": Says(1.0, 0.0), "b": Says(1.0, 0.0)})
    logits = network(torch.zeros(1, 3, 32, 32)).logits
    assert logits.isfinite().all()
    assert probabilities(network) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("members", "weights", "said"),
    [
        ({}, {}, "an ensemble has members"),
        ({"a": Says(0.5, 0.5)}, {"b": 1.0}, "no member b; the members are a"),
        ({"a": Says(0.5, 0.5)}, {"a": 0.0}, "must be positive"),
        ({"a": Says(0.5, 0.5), "b": Says(0.5, 0.5)}, {"b": -1.0}, "must be positive"),
        ({"a": Says(0.5, 0.5), "b": Says(0.2, 0.3, 0.5)}, {}, r"unequal classes \(a 2, b 3\); give class_map"),
    ],
)
def test_wrong_members_are_named(members: dict[str, Any], weights: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Ensemble(members, weights)


def test_real_networks_keep_their_own_normalisation() -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    networks = [ESPNetC(5, Normalization((m, m, m), (50, 50, 50)), p=1, q=1).eval() for m in (0.0, 120.0)]
    with torch.no_grad():
        both = Ensemble({"a": networks[0], "b": networks[1]}).eval()(images).logits.exp()
        alone = [network(images).logits.softmax(1) for network in networks]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
