"""Exported files compute the network's logits at any size, and files that do not are found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from segkd.errors import CheckFailed, UserError
from segkd.export.formats import FORMATS
from segkd.export.graph import Graph
from segkd.export.runtimes import Runtime
from segkd.export.verification import TOLERANCE, export_and_verify, find_max_difference
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.espnet import ESPNet, ESPNetC

SHAPES = ((1, 64, 96), (2, 75, 33), (1, 130, 101))


def build_network(network_class: type[SegmentationModel] = ESPNet, bgr: bool = True) -> SegmentationModel:
    network = network_class(7, Normalization((120, 110, 100), (60, 55, 50), bgr=bgr), p=1, q=1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return network.train()


def make_images(*shape: int) -> Tensor:
    count, height, width = shape
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("network_class", [ESPNet, ESPNetC])
@pytest.mark.parametrize("name", FORMATS)
def test_file_gives_the_network_s_logits_at_any_size(
    name: str, network_class: type[SegmentationModel], tmp_path: Path
) -> None:
    original = build_network(network_class)
    runtime = export_and_verify(name, Graph(original), tmp_path, [make_images(1, 96, 128)], threads=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FORMATS[name].files), "no other file is left"
    assert original.training, "the network stays in training mode"
    original.eval()
    for shape in SHAPES:
        images = make_images(*shape)
        with torch.no_grad():
            expected = original(images).logits_at(shape[1:])
        logits = runtime(images)
        difference = (logits - expected).abs().max() / expected.abs().max()
        least, most = (0, TOLERANCE) if FORMATS[name].is_exact else (TOLERANCE, 0.25)  # int8 rounds
        assert least <= difference < most


def test_normalization_may_be_left_to_the_caller(tmp_path: Path) -> None:
    original = build_network().eval()
    runtime = export_and_verify("onnx", Graph(original, include_normalization=False), tmp_path, [], threads=1)
    images = make_images(1, 64, 96)
    with torch.no_grad():
        expected = original(images).logits_at((64, 96))
    torch.testing.assert_close(runtime(original.normalization(images)), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="Unexpected input data type"):
        runtime(images)


def add_offset(runtime: Runtime) -> Runtime:
    return lambda images: runtime(images) + 1e-2


def return_nan_at_odd_widths(runtime: Runtime) -> Runtime:
    return lambda images: runtime(images) * (float("nan") if images.shape[-1] % 2 else 1)


def crop_to_recorded_size(runtime: Runtime) -> Runtime:
    return lambda images: runtime(images)[..., :96, :128]


FAULTS: dict[str, tuple[Callable[[Runtime], Runtime], str]] = {
    "offset": (add_offset, r"at \d+×\d+ by .+ of the greatest logit"),
    "NaN at odd widths": (return_nan_at_odd_widths, "at 101×75 by nan of the greatest logit"),
    "size of the example": (crop_to_recorded_size, "at 101×75 by logits of 96×75 instead of 101×75"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_file_that_computes_something_else_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the size at which it does. Without the fault the same file is accepted."""
    fault, message = FAULTS[name]
    original = FORMATS["torchscript"]
    graph = Graph(build_network(ESPNetC))
    assert find_max_difference(graph, export_and_verify("torchscript", graph, tmp_path, [], 1)).value < TOLERANCE
    broken = original._replace(open=lambda path, threads: fault(original.open(path, threads)))
    monkeypatch.setitem(FORMATS, "torchscript", broken)
    with pytest.raises(CheckFailed, match=f"torchscript file differs from its network {message}; not written"):
        export_and_verify("torchscript", graph, tmp_path, [], 1)


def refuse_odd_widths(runtime: Runtime) -> Runtime:
    def run(images: Tensor) -> Tensor:
        if images.shape[-1] % 2:
            raise RuntimeError("Got invalid dimensions for input: images")
        return runtime(images)

    return run


def test_file_that_refuses_a_size_is_an_error_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one size may be what the network allows."""
    original = FORMATS["torchscript"]
    broken = original._replace(open=lambda path, threads: refuse_odd_widths(original.open(path, threads)))
    monkeypatch.setitem(FORMATS, "torchscript", broken)
    message = r"for images of any size \(at 101×75: Got invalid .+\); give size=\[HEIGHT,WIDTH\]"
    with pytest.raises(UserError, match=message):
        export_and_verify("torchscript", Graph(build_network(ESPNetC)), tmp_path, [], 1)
    export_and_verify("torchscript", Graph(build_network(ESPNetC), size=(64, 96)), tmp_path, [], 1)


def test_int8_quantizes_larger_convolutions_only(tmp_path: Path) -> None:
    """Convolutions of more than one pixel at stride 1 have quantized input and weights; no other has."""
    export_and_verify("int8", Graph(build_network()), tmp_path, [make_images(1, 96, 128)], threads=1)
    nodes = onnx.load(tmp_path / "student.int8.onnx").graph.node
    producer = {output: node.op_type for node in nodes for output in node.output}
    kinds = set()
    for node in nodes:
        if node.op_type == "Conv":
            sizes = {attribute.name: attribute.ints for attribute in node.attribute}
            is_large = max(sizes["kernel_shape"]) > 1 and max(sizes["strides"]) == 1
            is_quantized = [producer.get(name) == "DequantizeLinear" for name in node.input[:2]]
            assert is_quantized[1] == is_large, node.name
            assert not is_large or all(is_quantized)
            kinds.add(is_large)
    assert kinds == {True, False}


class Unexportable(ESPNetC):
    """A network with an operation that ONNX does not have."""

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return super().forward_normalized(images + torch.special.bessel_j0(images))


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_network_that_cannot_be_exported_is_one_sentence(
    size: tuple[int, int] | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """PyTorch's C++ prints the graph that it cannot convert to the process's standard output."""
    network = Unexportable(7, Normalization((0,) * 3, (1,) * 3), p=1, q=1)
    sizes = (
        r"64×96 \(.+\); take"
        if size
        else r"any size \(.+\); give size=\[HEIGHT,WIDTH\] for a file of one size, or take"
    )
    with pytest.raises(
        UserError, match=f"Unexportable cannot be exported to onnx for images of {sizes} another format"
    ):
        export_and_verify("onnx", Graph(network, size=size), tmp_path, [], 1)
    assert capfd.readouterr() == ("", "")
    os.write(1, b"restored")
    assert capfd.readouterr().out == "restored"


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "onnx"), ("onnx", "onnxruntime"), ("openvino", "openvino"), ("int8", "onnxruntime")]
)
def test_missing_package_is_an_error(name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"'{package}' is not installed; pip install 'segkd\[export\]'"):
        export_and_verify(name, Graph(build_network(ESPNetC)), tmp_path, [make_images(1, 64, 64)], 1)
