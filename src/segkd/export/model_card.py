"""What goes beside an exported file: facts for machines, and a card that tells a reader the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_INPUT = {
    True: "uint8, RGB in 0..255; the file normalises",
    False: "float32, normalised by the caller: (RGB in 0..255 − mean) / std{}",
}


def write_model_card(facts: Mapping[str, Any]) -> str:
    """The model card of an exported file, in Markdown."""
    scores, normalization = facts["scores"], facts["normalization"]
    taken = _INPUT[normalization["inside"]].format(", then BGR" if normalization["bgr"] else "")
    lines = [
        f"# {facts['file']}",
        "",
        f"{facts['network']} for semantic segmentation, {facts['parameters']:,} parameters, exported to {facts['format']} "
        f"by segkd {facts['segkd']} from `{facts['checkpoint']}`.",
        "",
        f"- **In** `images`: batch × 3 × height × width, {facts['smallest']} pixels a side and more; {taken}.",
        "- **Out** `logits`: batch × outputs × height × width, float32, of the images' own size. The class is the greatest.",
        f"- **Normalisation**: mean {_numbers(normalization['mean'])}, std {_numbers(normalization['std'])}"
        f"{', channels turned to BGR' if normalization['bgr'] else ''}.",
        f"- **SHA-256**: {', '.join(f'`{name}` {digest}' for name, digest in facts['sha256'].items())}",
        "",
        "## Scores",
        "",
        f"{scores['dataset']} {scores['split']}, {scores['images']} images, whole, void ignored, one confusion matrix; per cent.",
        "",
        "| | this file | the network it was made from |",
        "|---|---:|---:|",
        f"| **mIoU** | **{_percent(scores['miou'])}** | {_percent(scores['miou_before'])} |",
    ]
    lines += [
        f"| {number} {name} | {_percent(after)} | {_percent(scores['iou_before'][name])} |"
        for number, (name, after) in enumerate(scores["iou"].items())
    ]
    if facts["outputs"] > len(facts["classes"]):
        lines += ["", f"Output {len(facts['classes'])} is for unlabelled pixels and did not compete."]
    return "\n".join([*lines, *_recipe(facts["recipe"]), ""])


def _recipe(recipe: Mapping[str, Any]) -> list[str]:
    """How the network was trained, as far as its run says so."""
    if not recipe:
        return ["", "## Recipe", "", "Not known: the weights came as a file, without the run that made them."]
    return ["", "## Recipe", "", *(f"- {what}: {value}" for what, value in recipe.items())]


def _percent(score: float | None) -> str:
    return "absent" if score is None else f"{100 * score:.2f}"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
