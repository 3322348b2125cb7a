"""The formats that a network can be exported to."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.export.graph import Graph
from segkd.export.runtimes import Runtime, load_onnxruntime, load_openvino, load_torchscript
from segkd.utils.packages import require_package

_OPSET = 17
_STDOUT = 1  # its file descriptor

Writer = Callable[[Graph, Path, Iterable[Tensor]], None]
"""Writes a graph to a file; the tensors are calibration images."""


class Format(NamedTuple):
    """A file format."""

    files: tuple[str, ...]
    """Names of its files; the first is the one to open."""
    write: Writer
    open: Callable[[Path, int], Runtime]
    """Opens a file with a number of threads."""
    is_exact: bool = True
    """Whether its logits must be the network's."""


def write_torchscript(graph: Graph, path: Path, _: Iterable[Tensor] = ()) -> None:
    """Write TorchScript, which runs in PyTorch, from C++ too."""
    content = io.BytesIO()
    with _silence_exporters():
        traced = torch.jit.trace(graph, graph.make_example(), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, content)
    path.write_bytes(content.getvalue())


def write_onnx(graph: Graph, path: Path, _: Iterable[Tensor] = ()) -> None:
    """Write ONNX with a dynamic batch and, unless the graph has a size, dynamic height and width."""
    require_package("onnx", "export")
    dynamic = {0: "batch", 2: "height", 3: "width"} if graph.size is None else {0: "batch"}
    # The tracing exporter: the one by torch.export takes 30 times as long and refuses four more networks for their odd sizes.
    with _silence_exporters():
        torch.onnx.export(
            graph,
            (graph.make_example(),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": dynamic, "logits": dynamic},
            opset_version=_OPSET,
            dynamo=False,
        )


def write_openvino(graph: Graph, path: Path, _: Iterable[Tensor] = ()) -> None:
    """Write OpenVINO's two files, in float32."""
    package = require_package("openvino", "export")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        write_onnx(graph, Path(folder) / "graph.onnx")
        # Read from ONNX, since OpenVINO's converter for PyTorch reports its use to its makers.
        model = package.Core().read_model(Path(folder) / "graph.onnx")
        try:
            package.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:  # a full disk: OpenVINO raises no OSError
            raise OSError(errno.EIO, f"OpenVINO: {error}") from None


def write_int8(graph: Graph, path: Path, images: Iterable[Tensor]) -> None:
    """Write ONNX whose larger convolutions compute in int8: weights per channel, activations by their range on the images.

    Convolutions of more than one pixel at stride 1 are quantized. They hold nearly all of ESPNet's work; 1×1 and strided ones
    mix maps of different ranges, the image's own among them, and in int8 cost most of the accuracy.
    """
    onnx = require_package("onnx", "export")
    require_package("onnxruntime", "export")
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _silence_exporters():
        original, folded = Path(folder) / "graph.onnx", Path(folder) / "folded.onnx"
        write_onnx(graph, original)
        quant_pre_process(original, folded, skip_symbolic_shape=True)  # it cannot infer the crops of odd maps
        quantize_static(
            folded,
            path,
            _CalibrationReader(images),
            nodes_to_quantize=[node.name for node in onnx.load(folded).graph.node if _should_quantize(node)],
            per_channel=True,
            activation_type=QuantType.QUInt8,  # signed activations take half as long again on x86
        )


FORMATS = {
    "onnx": Format(("student.onnx",), write_onnx, load_onnxruntime),
    "openvino": Format(("student.xml", "student.bin"), write_openvino, load_openvino),
    "torchscript": Format(("student.torchscript",), write_torchscript, load_torchscript),
    "int8": Format(("student.int8.onnx",), write_int8, load_onnxruntime, is_exact=False),
}


def _should_quantize(node: Any) -> bool:
    sizes = {attribute.name: attribute.ints for attribute in node.attribute}
    return bool(node.op_type == "Conv" and max(sizes["kernel_shape"]) > 1 and max(sizes.get("strides", [1])) == 1)


class _CalibrationReader:
    """Calibration images with the interface of ONNX Runtime's quantizer."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, object] | None:
        """Return the next image, None at the end."""
        image = next(self.images, None)
        return None if image is None else {"images": image.numpy()}


@contextlib.contextmanager
def _silence_exporters() -> Iterator[None]:
    """Silence the messages that exporters print, log and warn for their own developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()), _close_stdout():
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _close_stdout() -> Iterator[None]:
    """Drop what is written to the process's standard output, to which PyTorch's C++ prints a graph that it cannot convert."""
    try:
        former = os.dup(_STDOUT)
    except OSError:  # closed already
        yield
        return
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), _STDOUT)
        yield
    finally:
        os.dup2(former, _STDOUT)
        os.close(former)
