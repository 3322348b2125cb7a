"""What runs an exported file on a CPU: each opens a file and answers images with class scores."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel

Runtime = Callable[[Tensor], Tensor]
"""Images B 3 H W to class scores B K H W."""


def require_package(package: str) -> Any:
    """A package of the extra `export`.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise UserError(f"the package '{package}' is not installed; pip install 'segkd[export]'") from None


def load_torchscript(path: Path, threads: int) -> Runtime:  # noqa: ARG001  PyTorch's threads are the process's
    """PyTorch's own. It reads files that segkd made; a stranger's should not be opened."""
    module = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            answer: Tensor = module(images)
        return answer

    return run


def load_onnxruntime(path: Path, threads: int) -> Runtime:
    """ONNX Runtime, on its CPU provider."""
    package = require_package("onnxruntime")
    options = package.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are of its own optimiser
    session = package.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def load_openvino(path: Path, threads: int) -> Runtime:
    """OpenVINO's CPU plugin, held to float32: by itself it computes in bfloat16 where the processor can."""
    core = require_package("openvino").Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])


class ExportedModel(SegmentationModel):
    """An exported file as a network, to be scored as the original is; what the file leaves outside it does itself."""

    def __init__(self, run: Runtime, original: SegmentationModel, inside: bool) -> None:
        super().__init__(original.num_classes, original.normalization, {})
        self.align_corners = original.align_corners
        if inside:
            self.normalization = _NoNormalization((0,) * 3, (1,) * 3)
        self.run = run

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.run(images), {}


class _NoNormalization(Normalization):
    def forward(self, images: Tensor) -> Tensor:
        return images
