"""The files that a network can be exported to, and the proof that each computes what the network does."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segkd.errors import CheckFailed, UserError
from segkd.export.graph import Graph
from segkd.export.runtimes import Runtime, load_onnxruntime, load_openvino, load_torchscript, require_package

_OPSET = 17
CHECKED_SHAPES = ((1, 96, 128), (2, 101, 75), (1, 64, 187))
"""Images, height and width at which a file is compared with its network."""
TOLERANCE = 1e-4
"""What the logits may differ by, as a share of the greatest: float32 sums in another order."""

Write = Callable[[Graph, Path, Iterable[Tensor]], None]


class Format(NamedTuple):
    """A kind of file.

    `files` are its parts, of which the first is the one to open; `write` takes the graph, the first file and calibration images.
    """

    files: tuple[str, ...]
    write: Write
    open: Callable[[Path, int], Runtime]
    exact: bool = True
    """Whether its logits are the network's."""


def write_torchscript(graph: Graph, path: Path, _: Iterable[Tensor] = ()) -> None:
    """The recorded graph as PyTorch keeps it; runs from C++ too."""
    content = io.BytesIO()
    with _silenced():
        recorded = torch.jit.trace(graph, graph.example(), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(recorded, content)
    path.write_bytes(content.getvalue())


def write_onnx(graph: Graph, path: Path, _: Iterable[Tensor] = ()) -> None:
    """ONNX with batch, height and width free."""
    require_package("onnx")
    free = {0: "batch", 2: "height", 3: "width"}
    # The exporter by recording: torch.export's takes 30 times as long, and refuses four networks more for their odd sizes.
    with _silenced():
        torch.onnx.export(
            graph,
            (graph.example(),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": free, "logits": free},
            opset_version=_OPSET,
            dynamo=False,
        )


def write_openvino(graph: Graph, path: Path, _: Iterable[Tensor] = ()) -> None:
    """OpenVINO's pair of files, in float32."""
    package = require_package("openvino")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        write_onnx(graph, Path(folder) / "graph.onnx")
        # Read from ONNX, since OpenVINO's converter of PyTorch reports its use to its makers.
        model = package.Core().read_model(Path(folder) / "graph.onnx")
        try:
            package.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:  # a full disk, which OpenVINO does not call so
            raise OSError(errno.EIO, f"OpenVINO: {error}") from None


def write_int8(graph: Graph, path: Path, images: Iterable[Tensor]) -> None:
    """ONNX whose heavy convolutions compute on 8 bits: weights per channel, activations by their range on the images.

    Heavy are those of more than one pixel at stride 1. They hold nearly all of ESPNet's work; 1×1 and strided ones mix maps of
    unlike ranges, the image's own among them, and on 8 bits cost most of the accuracy.
    """
    onnx = require_package("onnx")
    require_package("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _silenced():
        whole, folded = Path(folder) / "graph.onnx", Path(folder) / "folded.onnx"
        write_onnx(graph, whole)
        quant_pre_process(whole, folded, skip_symbolic_shape=True)  # it cannot follow the cuts of odd maps
        quantize_static(
            folded,
            path,
            _Reader(images),
            nodes_to_quantize=[node.name for node in onnx.load(folded).graph.node if _should_quantize(node)],
            per_channel=True,
            activation_type=QuantType.QUInt8,  # signed activations take half as long again on x86
        )


FORMATS = {
    "onnx": Format(("student.onnx",), write_onnx, load_onnxruntime),
    "openvino": Format(("student.xml", "student.bin"), write_openvino, load_openvino),
    "torchscript": Format(("student.torchscript",), write_torchscript, load_torchscript),
    "int8": Format(("student.int8.onnx",), write_int8, load_onnxruntime, exact=False),
}


def export_and_verify(name: str, graph: Graph, folder: Path, images: Iterable[Tensor], threads: int) -> Runtime:
    """The graph written to a folder in a format and opened again.

    Raises:
        UserError: the format cannot hold this network, or a package is missing.
        Refused: what was written computes something else.
    """
    form = FORMATS[name]
    path = folder / form.files[0]
    try:
        form.write(graph, path, images)
        run = form.open(path, threads)
        difference = max_difference(graph, run)
    except (UserError, OSError):
        raise
    except Exception as error:  # exporters and engines raise whatever they meet
        network = type(graph.network).__name__
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise UserError(
            f"{network} cannot be exported to {name} for images of any size ({reason}); take another format"
        ) from None
    if form.exact and not difference <= TOLERANCE:
        raise CheckFailed(
            f"the {name} file differs from its network by {difference:.1e} of the greatest logit; not written"
        )
    return run


@torch.no_grad()
def max_difference(graph: Graph, run: Runtime) -> float:
    """The greatest difference of logits over all SHAPES, as a share of the greatest logit."""
    found = []
    for shape in CHECKED_SHAPES:
        images = graph.example(*shape)
        expected, answer = graph(images), run(images)
        if answer.shape != expected.shape:
            return float("inf")
        found.append((answer - expected).abs().max() / expected.abs().max())
    return torch.stack(found).max().item()  # NaN if one is, which Python's max would lose


def _should_quantize(node: Any) -> bool:
    sizes = {attribute.name: attribute.ints for attribute in node.attribute}
    return bool(node.op_type == "Conv" and max(sizes["kernel_shape"]) > 1 and max(sizes.get("strides", [1])) == 1)


class _Reader:
    """Images as the quantiser asks for them: one at a time, None at the end."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, object] | None:
        image = next(self.images, None)
        return None if image is None else {"images": image.numpy()}


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without what exporters tell their own developers, on every stream that they have."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
