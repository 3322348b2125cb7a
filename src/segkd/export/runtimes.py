"""Runtimes that execute an exported file on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from segkd.models.base import Normalization, SegmentationModel
from segkd.utils.packages import require_package

Runtime = Callable[[Tensor], Tensor]
"""Images B 3 H W to logits B K H W."""


def load_torchscript(path: Path, threads: int) -> Runtime:  # noqa: ARG001  PyTorch's threads are the process's
    """Load a file into PyTorch; only files that segkd itself wrote, since TorchScript from others may run code."""
    module = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(images)
        return logits

    return run


def load_onnxruntime(path: Path, threads: int) -> Runtime:
    """Load a file into ONNX Runtime with its CPU provider."""
    package = require_package("onnxruntime", "export")
    options = package.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimizer
    session = package.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def load_openvino(path: Path, threads: int) -> Runtime:
    """Load a file into OpenVINO's CPU plugin in float32; its default is bfloat16 where the processor supports it."""
    core = require_package("openvino", "export").Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])


class ExportedModel(SegmentationModel):
    """An exported file with the interface of a network, so that it can be evaluated like the original.

    Args:
        runtime: executes the file.
        original: the network that was exported.
        includes_normalization: whether the file normalizes; else this class does.
    """

    def __init__(self, runtime: Runtime, original: SegmentationModel, includes_normalization: bool) -> None:
        super().__init__(original.num_classes, original.normalization, {})
        self.align_corners = original.align_corners
        if includes_normalization:
            self.normalization = _NoNormalization((0,) * 3, (1,) * 3)
        self.runtime = runtime

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the file's logits, B K H W, and no features."""
        return self.runtime(images), {}


class _NoNormalization(Normalization):
    def forward(self, images: Tensor) -> Tensor:
        return images
