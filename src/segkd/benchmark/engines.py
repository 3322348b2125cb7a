"""Engines that run a trained network: PyTorch in several modes, and the exported formats."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segkd.errors import UserError, get_first_line
from segkd.export.formats import FORMATS
from segkd.export.graph import Graph
from segkd.export.verification import export_and_verify
from segkd.models.base import SegmentationModel

EngineName = Literal["eager", "compiled", "channels_last", "bf16", "torchscript", "onnx", "openvino", "int8"]

Engine = Callable[[Tensor], Tensor]
"""RGB images, B 3 H W uint8, to logits B K H W."""


def build_engine(name: str, network: SegmentationModel, folder: Path) -> Engine:
    """Return a function that runs a network in an engine.

    Args:
        name: of the engine.
        network: in evaluation mode, on its device.
        folder: for exported files.

    Raises:
        UserError: the engine cannot run this network.
    """
    if name in FORMATS:
        graph = Graph(network)
        # int8 is calibrated on noise here, which changes no time; its mIoU is that of an exported file.
        images = [graph.make_example()]
        return export_and_verify(name, graph, Path(tempfile.mkdtemp(dir=folder)), images, torch.get_num_threads())
    builders = {
        "eager": _build_eager,
        "compiled": _build_compiled,
        "channels_last": _build_channels_last,
        "bf16": _build_bf16,
    }
    return builders[name](network)


def _build_eager(network: SegmentationModel) -> Engine:
    return lambda images: network(images).logits_at((images.shape[-2], images.shape[-1]))


def _build_compiled(network: SegmentationModel) -> Engine:
    compiled: Engine = torch.compile(_build_eager(network), dynamic=False)

    def run(images: Tensor) -> Tensor:
        try:
            return compiled(images)
        except RuntimeError as error:  # no C++ compiler, or an operation that it does not support
            reason = get_first_line(error)[:200]
            raise UserError(f"torch.compile failed ({reason}); leave compiled out of engines") from None

    return run


def _build_channels_last(network: SegmentationModel) -> Engine:
    run = _build_eager(copy.deepcopy(network).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return lambda images: run(images.contiguous(memory_format=torch.channels_last))


def _build_bf16(network: SegmentationModel) -> Engine:
    run = _build_eager(network)

    def run_in_bf16(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return run(images)

    return run_in_bf16
