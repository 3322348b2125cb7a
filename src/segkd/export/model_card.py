"""The model card beside an exported file: its metadata for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segkd.export.usage import format_usage

_INPUT = {
    True: "uint8, RGB in 0..255; the file normalizes",
    False: "float32, normalized by the caller: (RGB in 0..255 − mean) / std{}",
}


def format_model_card(metadata: Mapping[str, Any]) -> str:
    """Return the model card of an exported file, in Markdown."""
    scores, normalization = metadata["scores"], metadata["normalization"]
    image_format = _INPUT[normalization["inside"]].format(", then BGR" if normalization["bgr"] else "")
    has_void = metadata["outputs"] > len(metadata["classes"])
    lines = [
        f"# {metadata['file']}",
        "",
        f"{metadata['network']} for semantic segmentation, {metadata['parameters']:,} parameters, exported to "
        f"{metadata['format']} by segkd {metadata['segkd']} from `{metadata['checkpoint']}`.",
        "",
        f"- **Input** `images`: batch × 3 × {_format_sides(metadata)}; {image_format}.",
        "- **Output** `logits`: batch × outputs × height × width, float32, of the images' own size. The class is the argmax"
        f"{' of the classes' * has_void}.",
        f"- **Normalization**: mean {_format_numbers(normalization['mean'])}, std {_format_numbers(normalization['std'])}"
        f"{', channels in BGR order' if normalization['bgr'] else ''}.",
        f"- **SHA-256**: {', '.join(f'`{name}` {digest}' for name, digest in metadata['sha256'].items())}",
        "",
        "## Use",
        "",
        "```python",
        *format_usage(metadata),
        "```",
        "",
        "## Scores",
        "",
        f"{scores['dataset']} {scores['split']}, {scores['images']} whole images{_format_resized(metadata)}, void ignored, "
        "one confusion matrix; percent.",
        "",
        "| | this file | the original network |",
        "|---|---:|---:|",
        f"| **mIoU** | **{_format_percent(scores['miou'])}** | {_format_percent(scores['miou_before'])} |",
    ]
    lines += [
        f"| {index} {name} | {_format_percent(iou)} | {_format_percent(scores['iou_before'][name])} |"
        for index, (name, iou) in enumerate(scores["iou"].items())
    ]
    if has_void:
        lines += ["", f"Output {len(metadata['classes'])} stands for unlabeled pixels and was not evaluated."]
    return "\n".join([*lines, *_format_recipe(metadata["recipe"]), ""])


def _format_recipe(recipe: Mapping[str, Any]) -> list[str]:
    """Return the section on how the network was trained."""
    if not recipe:
        return ["", "## Recipe", "", "Not known: the weights came as a file, without the run that trained them."]
    values = {name: f"`{value}`" if name == "command" else value for name, value in recipe.items()}
    return ["", "## Recipe", "", *(f"- {name}: {value}" for name, value in values.items())]


def _format_sides(metadata: Mapping[str, Any]) -> str:
    if metadata["size"] is None:
        return f"height × width, {metadata['smallest']} pixels a side and more"
    height, width = metadata["size"]
    return f"{height} × {width}, and no other size"


def _format_resized(metadata: Mapping[str, Any]) -> str:
    resized = metadata["scores"]["resized"]
    return f", {resized} of them resized to {' × '.join(map(str, metadata['size']))}" if resized else ""


def _format_percent(score: float | None) -> str:
    return "absent" if score is None else f"{100 * score:.2f}"


def _format_numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
