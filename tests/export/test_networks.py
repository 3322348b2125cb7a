"""Every network of configs/model, and adapters of others, computes the same in every format."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import segkd.models
from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.errors import CheckFailed, UserError
from segkd.export.formats import FORMATS
from segkd.export.graph import Graph
from segkd.export.pooling import TraceableAdaptivePooling
from segkd.export.verification import TOLERANCE, export_and_verify
from segkd.models import mobilenet, segnet, wrapped
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.ensemble import Ensemble
from segkd.models.espnet import ESPNetC
from segkd.models.mobilenet import MobileNetV2Plus
from segkd.models.pspnet import PSPNet
from segkd.models.segnet import SegNet

CLASSES = 7
STATISTICS = Normalization((120, 110, 100), (60, 55, 50), bgr=True)
SIZES = ((1, 64, 96), (2, 67, 93), (1, 97, 66))
EXACT = [name for name, file_format in FORMATS.items() if file_format.is_exact]
SMALL: dict[str, dict[str, int]] = {
    "espnet": {"p": 1, "q": 1},
    "espnet_c": {"p": 1, "q": 1},
    "mobilenetv2plus": {"pyramid": 8},
    **{f"pspnet_{name}": {"width": 8, "pyramid": 8} for name in ("resnet18", "resnet18_half", "resnet50")},
    **{f"pspnet_{name}": {"width": 8, "pyramid": 8} for name in ("resnet18_deep", "resnet101")},
}
WRAPPERS = ("none", "adapter", "ensemble")  # built below
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml") if path.stem not in WRAPPERS)


def build(name: str) -> SegmentationModel:
    node = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    spec = parse_spec({**node, **SMALL.get(name, {})})
    network: SegmentationModel = spec.build(num_classes=CLASSES, normalization=STATISTICS)
    return network


def build_adapter(output: str, divisor: int) -> Adapter:
    arguments = {"outputs": CLASSES, "output": output, "divisor": divisor}
    path = "tests.helpers.third_party_networks.ThirdPartyNetwork"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGKD_PLUGINS", "tests.helpers.third_party_networks")
        return Adapter(CLASSES, STATISTICS, network=path, arguments=arguments, features={"encoder": "backbone"})


def build_ensemble() -> Ensemble:
    return Ensemble({name: ESPNetC(CLASSES, STATISTICS, p=1, q=1) for name in "ab"})


def build_narrow_segnet() -> SegNet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segnet, "_STAGES", ((8, 8), (8, 8), (8, 8, 8), (8, 8, 8), (8, 8, 8)))
        return SegNet(CLASSES, STATISTICS)


BUILDERS: dict[str, Callable[[], SegmentationModel]] = {
    **{name: lambda name=name: build(name) for name in NAMES},
    "segnet": build_narrow_segnet,
    "ensemble": build_ensemble,
    "adapter at full size": lambda: build_adapter("tensor", 1),
    "adapter at 1/4": lambda: build_adapter("quarter size", 1),
    "adapter at 1/4 with divisible sides": lambda: build_adapter("quarter size", 32),
}


@pytest.fixture(scope="module", params=BUILDERS)
def network(request: pytest.FixtureRequest) -> SegmentationModel:
    torch.manual_seed(0)
    built = BUILDERS[request.param]().eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return built


def make_images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", EXACT)
def test_every_network_computes_the_same_in_every_format(network: SegmentationModel, name: str, tmp_path: Path) -> None:
    runtime = export_and_verify(name, Graph(network), tmp_path, [], threads=1)
    for shape in SIZES:
        images = make_images(*shape)
        with torch.no_grad():
            expected = network(images).logits_at(shape[1:])
        logits = runtime(images)
        assert logits.shape == expected.shape
        is_equal = (logits - expected).abs().amax(1) <= TOLERANCE * expected.abs().max()
        assert is_equal.float().mean() >= (0.98 if network.unpools else 1), shape


def round_down(dividend: int, divisor: int) -> int:
    """Compute what ONNX made of `-(-dividend // divisor)`."""
    return dividend // divisor


@pytest.mark.parametrize(
    ("module", "make"),
    [
        (mobilenet, lambda: MobileNetV2Plus(CLASSES, STATISTICS, pyramid=8)),
        (wrapped, lambda: build_adapter("quarter size", 32)),
    ],
)
def test_a_ceiling_that_becomes_a_floor_is_found(
    module: Any, make: Callable[[], SegmentationModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph(make().eval())

    def open_rounded_down(path: Path, threads: int) -> Any:
        del path, threads
        broken = Graph(make().eval())
        broken.load_state_dict(graph.state_dict())

        def run(images: Tensor) -> Tensor:
            with monkeypatch.context() as patch, torch.no_grad():
                patch.setattr(module, "divide_up", round_down)
                logits: Tensor = broken(images)
            return logits

        return run

    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(open=open_rounded_down))
    with pytest.raises(CheckFailed, match=r"at 101×75 by "):
        export_and_verify("onnx", graph, tmp_path, [], threads=1)


def test_no_network_negates_a_floor_division() -> None:
    """`-(-a // b)` becomes a floor in ONNX, where recorded divisions truncate."""

    def find(source: str) -> list[int]:
        return [
            node.lineno
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.FloorDiv)
            and isinstance(node.left, ast.UnaryOp)
            and isinstance(node.left.op, ast.USub)
        ]

    assert find("a = x[: -(-b // 4)]") == [1]
    paths = [*Path(segkd.models.__path__[0]).rglob("*.py")]
    assert len(paths) > 10
    assert {path.name: lines for path in paths if (lines := find(path.read_text()))} == {}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("size", [(48, 80), (67, 93)])
def test_file_of_one_size(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """A PSPNet, whose pooling needs no replacement where the size is known."""
    network = PSPNet(CLASSES, STATISTICS, width=8, pyramid=8).eval()
    runtime = export_and_verify(name, Graph(network, size=size), tmp_path, [], threads=1)
    images = make_images(3, *size)
    with torch.no_grad():
        expected = network(images).logits_at(size)
    assert (runtime(images) - expected).abs().max() <= TOLERANCE * expected.abs().max()
    if name != "torchscript":  # which has no shapes
        with pytest.raises(Exception, match=r"(?i)dimension|shape"):
            runtime(make_images(1, size[0] + 8, size[1]))


def test_size_below_the_smallest_is_refused() -> None:
    with pytest.raises(UserError, match=r"size=\[32,64\] is too small for PSPNet, whose images have 33 pixels a side"):
        Graph(PSPNet(CLASSES, STATISTICS, width=8, pyramid=8), size=(32, 64))


@pytest.mark.parametrize("bins", [2, 3, 6, (3, None), (None, 2), (4, 5)])
@pytest.mark.parametrize("size", [(6, 6), (7, 11), (2, 9)])
def test_traceable_pooling_is_adaptive_pooling(bins: Any, size: tuple[int, int]) -> None:
    """Also where a map is smaller than the bins."""
    maps = torch.randn(2, 3, *size)
    expected = nn.AdaptiveAvgPool2d(bins)(maps)
    pair = bins if isinstance(bins, tuple) else (bins, bins)
    torch.testing.assert_close(TraceableAdaptivePooling(pair)(maps), expected)
