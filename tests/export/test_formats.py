"""Exported files: what they compute is what the network does, at any size; and what is not is found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from segkd.errors import CheckFailed, UserError
from segkd.export.formats import FORMATS, TOLERANCE, export_and_verify, max_difference
from segkd.export.graph import Graph
from segkd.export.runtimes import Runtime
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.enet import ENet
from segkd.models.espnet import ESPNet, ESPNetC

SHAPES = ((1, 64, 96), (2, 75, 33), (1, 130, 101))


def network(kind: type[SegmentationModel] = ESPNet, bgr: bool = True) -> SegmentationModel:
    made = kind(7, Normalization((120, 110, 100), (60, 55, 50), bgr=bgr), p=1, q=1)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return made.train()


def noise(*shape: int) -> Tensor:
    count, height, width = shape
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("kind", [ESPNet, ESPNetC])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_answers_as_the_network_at_any_size(name: str, kind: type[SegmentationModel], tmp_path: Path) -> None:
    original = network(kind)
    run = export_and_verify(name, Graph(original), tmp_path, [noise(1, 96, 128)], threads=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FORMATS[name].files), "and nothing besides"
    assert original.training, "the network is left as it was"
    original.eval()
    for shape in SHAPES:
        images = noise(*shape)
        with torch.no_grad():
            expected = original(images).logits_at(shape[1:])
        answer = run(images)
        difference = (answer - expected).abs().max() / expected.abs().max()
        least, most = (0, TOLERANCE) if FORMATS[name].exact else (TOLERANCE, 0.25)  # 8 bits show
        assert least <= difference < most


def test_normalisation_may_stay_outside(tmp_path: Path) -> None:
    original = network().eval()
    run = export_and_verify("onnx", Graph(original, inside=False), tmp_path, [], threads=1)
    images = noise(1, 64, 96)
    with torch.no_grad():
        expected = original(images).logits_at((64, 96))
    torch.testing.assert_close(run(original.normalization(images)), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="Unexpected input data type"):
        run(images)


def shifted(run: Runtime) -> Runtime:
    return lambda images: run(images) + 1e-2


def unknowing(run: Runtime) -> Runtime:
    return lambda images: run(images) * (float("nan") if images.shape[-1] % 2 else 1)


def rigid(run: Runtime) -> Runtime:
    return lambda images: run(images)[..., :96, :128]


@pytest.mark.parametrize("fault", [shifted, unknowing, rigid])
def test_a_file_that_computes_something_else_is_refused(
    fault: Callable[[Runtime], Runtime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shift; not a number at one of the sizes; the size of recording. Without the fault the same file is taken."""
    sound = FORMATS["torchscript"]
    graph = Graph(network(ESPNetC))
    assert max_difference(graph, export_and_verify("torchscript", graph, tmp_path, [], 1)) < TOLERANCE
    broken = sound._replace(open=lambda path, threads: fault(sound.open(path, threads)))
    monkeypatch.setitem(FORMATS, "torchscript", broken)
    with pytest.raises(CheckFailed, match="differs from its network by"):
        export_and_verify("torchscript", graph, tmp_path, [], 1)


def test_eight_bits_are_where_they_should_be(tmp_path: Path) -> None:
    """Each convolution of more than one pixel at stride 1 reads its input and its weights from 8 bits; no other does."""
    export_and_verify("int8", Graph(network()), tmp_path, [noise(1, 96, 128)], threads=1)
    nodes = onnx.load(tmp_path / "student.int8.onnx").graph.node
    maker = {output: node.op_type for node in nodes for output in node.output}
    found = set()
    for node in nodes:
        if node.op_type == "Conv":
            sizes = {attribute.name: attribute.ints for attribute in node.attribute}
            heavy = max(sizes["kernel_shape"]) > 1 and max(sizes["strides"]) == 1
            read = [maker.get(name) == "DequantizeLinear" for name in node.input[:2]]
            assert read[1] == heavy, node.name
            assert not heavy or all(read)
            found.add(heavy)
    assert found == {True, False}


def test_a_network_that_no_exporter_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"ENet cannot be exported to onnx for images of any size \(.+\); take another"):
        export_and_verify("onnx", Graph(ENet(7, Normalization((0,) * 3, (1,) * 3))), tmp_path, [], 1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "onnx"), ("onnx", "onnxruntime"), ("openvino", "openvino"), ("int8", "onnxruntime")]
)
def test_a_missing_package_is_named(name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"'{package}' is not installed; pip install 'segkd\[export\]'"):
        export_and_verify(name, Graph(network(ESPNetC)), tmp_path, [noise(1, 64, 64)], 1)
