"""Faults of networks are found, line by line, and told in a sentence; see tests/models/test_networks.py for segkd's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkd.check_part.network_contract import CHECKS, check_network
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.layers import SampleDropout2d
from segkd.types import FeatureInfo
from segkd.utils.plugins import VARIABLE


class Tiny(SegmentationModel):
    """A network without fault: logits at 1/8."""

    min_size = 16

    def __init__(self, num_classes: int, normalization: Normalization, width: int = 8) -> None:
        features = {"encoder": FeatureInfo(width, 8), "kd_logits": FeatureInfo(num_classes, 8)}
        super().__init__(num_classes, normalization, features, width=width)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1)
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        encoder = self.body(images)
        return self.finish(encoder, self.head(encoder))

    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return logits, {"encoder": encoder, "kd_logits": logits}


class LogitsOnly(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return logits


class ListOfFeatures(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return logits, [encoder, logits]


class OwnForward(Tiny):
    def forward(self, images: Tensor) -> Any:
        return self.head(self.body(self.normalization(images)))


class OtherFeatures(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return logits, {"deep": encoder, "kd_logits": logits}


class FixedSize(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(encoder, logits.view(2, -1, 12, 16))


class FeatureOfTraining(Tiny):
    """Returns a feature in training only."""

    def __init__(self, num_classes: int, normalization: Normalization) -> None:
        super().__init__(num_classes, normalization)
        self.features["auxiliary"] = FeatureInfo(num_classes, 8)

    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        logits, features = super().finish(encoder, logits)
        return logits, {**features, "auxiliary": logits} if self.training else features


class HighMinimum(Tiny):
    min_size = 1

    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(
            encoder, logits[..., : logits.shape[2] // 2 * 2, :] if logits.shape[2] > 1 else logits / 0
        )


class Unrefused(Tiny):
    def forward(self, images: Tensor) -> Any:
        self.min_size, side = 1, self.min_size
        output = super().forward(images)
        self.min_size = side
        return output


class IdleHead(Tiny):
    def __init__(self, num_classes: int, normalization: Normalization) -> None:
        super().__init__(num_classes, normalization)
        self.idle = nn.Conv2d(3, 3, 1)


class BatchStatistics(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(encoder, logits - logits.mean(0, keepdim=True) / 2)


class RandomEvaluation(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(encoder, logits + 1e-6 * torch.rand_like(logits))


class Counting(Tiny):
    def __init__(self, num_classes: int, normalization: Normalization) -> None:
        super().__init__(num_classes, normalization)
        self.register_buffer("count", torch.zeros(()))

    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        self.count += 1
        return super().finish(encoder, logits)


class Float32Only(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(encoder, logits.float())


class ForgetsWidth(Tiny):
    def __init__(self, num_classes: int, normalization: Normalization, width: int = 8, depth: int = 1) -> None:
        super().__init__(num_classes, normalization, width)


class OtherWidth(Tiny):
    """Says a width that it does not have."""

    def __init__(self, num_classes: int, normalization: Normalization, width: int = 8) -> None:
        super().__init__(num_classes, normalization, 2 * width)


class HiddenTensor(Tiny):
    """Holds a tensor that its state dict lacks."""

    def __init__(self, num_classes: int, normalization: Normalization, width: int = 8) -> None:
        super().__init__(num_classes, normalization, width)
        self.shift = torch.rand(())

    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(encoder, logits + self.shift)


class UnsavedArgument(Tiny):
    def __init__(self, num_classes: int, normalization: Normalization, width: int = 8, of: Any = int) -> None:
        super().__init__(num_classes, normalization, width)
        self.arguments["of"] = torch.zeros(2)


class OwnClasses(Tiny):
    """Has five outputs, whatever is asked for."""

    def __init__(self, num_classes: int, normalization: Normalization, width: int = 8) -> None:
        super().__init__(5, normalization, width)


class Dropout(Tiny):
    def __init__(self, num_classes: int, normalization: Normalization, layer: type[nn.Module] = nn.Dropout) -> None:
        super().__init__(num_classes, normalization)
        self.first, self.second = layer(0.5), layer(0.5)
        del self.arguments["width"]
        self.arguments["layer"] = layer


class PythonNumbers(Tiny):
    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        return super().finish(encoder, logits * (2 if logits.sum().item() > 1e9 else 1))


class Remembering(Tiny):
    """Computes a size with Python, so that a recorded graph holds the first one."""

    def finish(self, encoder: Tensor, logits: Tensor) -> Any:
        rows = torch.arange(int(logits.shape[2])).tolist()
        return super().finish(encoder, logits[:, :, rows])


def make(kind: Callable[..., SegmentationModel], **arguments: Any) -> SegmentationModel:
    torch.manual_seed(0)
    return kind(num_classes=7, normalization=Normalization((110.0,) * 3, (55.0,) * 3), **arguments)


def declare(name: str, info: Any) -> SegmentationModel:
    network = make(Tiny)
    network.features[name] = info
    return network


@pytest.fixture
def _as_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this module be a plugin, so that students of its classes load."""
    monkeypatch.setenv(VARIABLE, __name__.partition(".")[0])


# Line of the contract → networks that break it, each with what must be said.
FAULTY: dict[str, list[tuple[Callable[[], SegmentationModel], str]]] = {
    "features_as_declared": [
        (lambda: make(LogitsOnly), "forward_normalized returned Tensor and Tensor; return logits, B K h w, and a dict"),
        (lambda: make(ListOfFeatures), "forward_normalized returned Tensor and list; return logits"),
        (lambda: make(OwnForward), "an object of type Tensor; implement forward_normalized"),
        (lambda: make(OtherFeatures), "declares the features encoder, kd_logits and returns deep, kd_logits"),
        (lambda: make(FixedSize), rf"96×128 pass and those of 75×91 fail: RuntimeError: .*\({__file__}:\d+\); .*pad_to_multiple"),
        (lambda: declare("encoder", 64), "feature 'encoder' is declared as 64; declare segkd.types.FeatureInfo"),
        (lambda: declare("auxiliary", FeatureInfo(7, 8)), "declares the features encoder, kd_logits, auxiliary and returns"),
        (lambda: declare("encoder", FeatureInfo(9, 8)), "feature 'encoder' has 8 channels and declares 9"),
        (lambda: declare("encoder", FeatureInfo(8, 16)), "feature 'encoder' has 10 positions for 75 pixels, which is no stride of 16"),
        (lambda: declare("kd_logits", FeatureInfo(6, 8)), "it declares 6 channels of kd_logits for 7 classes"),
    ],
    "same_features_in_evaluation": [(lambda: make(FeatureOfTraining), "in evaluation mode it declares .* and returns encoder, kd_logits$")],
    "min_size": [
        (lambda: make(HighMinimum), "min_size is 1, and images of 1×1 fail: ValueError: .*raise min_size|NaN or Inf; raise"),
        (lambda: make(Unrefused), "min_size is 16, and images of 16×15 are not refused"),
    ],
    "every_parameter_gets_a_gradient": [(lambda: make(IdleHead), "2 parameters get no gradient.* first idle.weight, idle.bias")],
    "batch_independence": [(lambda: make(BatchStatistics), r"differ by \d+(\.\d+)? % between a batch of one and of two")],
    "repeatable_evaluation": [
        (lambda: make(RandomEvaluation), r"give logits that differ by up to \de-0\d|give logits that differ by up to \d\.\d+e-0\d"),
        (lambda: make(Counting), "in evaluation mode forward changes count"),
    ],
    "bfloat16": [(lambda: make(Float32Only), "under autocast the logits are torch.float32")],
    "arguments_rebuild_it": [
        (lambda: make(ForgetsWidth), r"takes depth, which `arguments` lacks; pass super\(\).__init__\(…, depth=depth\)"),
        (lambda: make(OtherWidth), r"rebuilt from its `arguments` it has another body.0.bias, body.0.weight"),
    ],
    "saved_student_loads": [
        (lambda: make(HiddenTensor), "the loaded network gives other logits"),
        (lambda: make(UnsavedArgument), r"student.yaml cannot hold .*tensor.*; give plain values"),
    ],
    "class_keys": [(lambda: make(OwnClasses), "no weight has another shape with one class more")],
    "dropout_by_sample": [
        (lambda: make(Dropout), "first, second draws from the process's random numbers"),
        (lambda: make(Dropout, layer=SampleDropout2d), "two dropout layers have one salt"),
    ],
    "compiles": [(lambda: make(PythonNumbers), rf"\({__file__}:\d+\)")],
    "traces": [(lambda: make(Remembering), "recorded at 96×128, at 75×91 the network fails: .*index 10 is out of bounds")],
}  # fmt: skip


@pytest.mark.usefixtures("_as_plugin")
def test_network_without_fault_keeps_every_line() -> None:
    findings = check_network(make(Tiny))
    assert [finding.line for finding in findings] == [*CHECKS]
    assert {str(finding) for finding in findings if finding.verdict != "keeps"} == {
        "dropout_by_sample does not apply (it has no dropout)"
    }


@pytest.mark.usefixtures("_as_plugin")
@pytest.mark.parametrize(("line", "index"), [(line, i) for line in CHECKS for i in range(len(FAULTY[line]))])
def test_faults_are_detected_in_a_sentence(line: str, index: int) -> None:
    make_faulty, sentence = FAULTY[line][index]
    finding = next(f for f in check_network(make_faulty(), [line]) if f.line == line)
    assert finding.verdict == ("lacks" if line in ("dropout_by_sample", "compiles", "traces") else "FAILS")
    assert re.search(sentence, finding.detail), finding.detail


def test_saved_student_is_not_checked_of_a_package_that_is_no_plugin() -> None:
    (_, finding) = check_network(make(Tiny), ["saved_student_loads"])
    assert finding.verdict == "does not apply"
    assert "is no plugin here; in a test, call segkd.utils.plugins.load_plugins" in finding.detail


def test_nothing_else_is_checked_where_features_are_missing() -> None:
    assert [finding.line for finding in check_network(make(LogitsOnly))] == ["features_as_declared"]
