"""The lines of a model card that run the exported file without segkd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ONNXRUNTIME = (
    "import onnxruntime",
    'session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
    'logits = session.run(["logits"], {{"images": images}})[0]',
)
_RUNTIMES = {
    "onnx": _ONNXRUNTIME,
    "int8": _ONNXRUNTIME,
    "openvino": (
        "import openvino",
        'network = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
        "logits = network(images)[0]",
    ),
    "torchscript": (
        "import torch",
        'network = torch.jit.load("{file}")',
        "logits = network(torch.from_numpy(images)).numpy()",
    ),
}
"""By format: the import, how the file is opened, and how it is run."""


def format_usage(metadata: Mapping[str, Any]) -> list[str]:
    """Return lines of Python that predict `image.png` with the file and write class ids to `labels.png`.

    Args:
        metadata: of the file.
    """
    load_package, open_file, run = _RUNTIMES[metadata["format"]]
    return [
        "import numpy as np",
        load_package,
        "from PIL import Image, ImageOps",
        "",
        'image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")',
        *_format_input(metadata),
        "",
        open_file.format(file=metadata["file"]),
        run.format(),
        f"labels = logits[0, :{len(metadata['classes'])}].argmax(0).astype(np.uint8)",
        'Image.fromarray(labels).save("labels.png")',
    ]


def _format_input(metadata: Mapping[str, Any]) -> list[str]:
    normalization, lines = metadata["normalization"], []
    if metadata["size"] is not None:
        height, width = metadata["size"]
        lines.append(f"image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)")
    if normalization["inside"]:
        return [*lines, "images = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))[None]"]
    mean, std = (", ".join(f"{value:.9g}" for value in normalization[name]) for name in ("mean", "std"))
    reverse = "[..., ::-1]" * normalization["bgr"]
    return [
        *lines,
        f"pixels = (np.asarray(image, np.float32) - np.float32([{mean}])) / np.float32([{std}])",
        f"images = np.ascontiguousarray(pixels{reverse}.transpose(2, 0, 1))[None]",
    ]
