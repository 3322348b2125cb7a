"""Rename the keys of files that earlier versions wrote, so that their runs can be read and compared with new ones."""

from __future__ import annotations

from typing import Any

from segkd.config.instantiate import update_target
from segkd.models.student_io import RENAMED_FEATURES

RENAMED_METRICS = {
    "boundary": "boundary_iou",
    "trimap": "trimap_iou",
    "agreement": "teacher_agreement",
    "categories": "category_iou",
    "instances": "instance_iou",
    "sequences": "per_sequence",
    "interval": "bootstrap_ci",
}
"""Key of `evaluation.json` in earlier versions → the key now."""

RENAMED_CURVES = {
    "train/holistic": "train/adversarial",
    "share/holistic": "share/adversarial",
    "train/critic/teacher": "train/discriminator/teacher",
    "train/critic/student": "train/discriminator/student",
    "train/critic/penalty": "train/discriminator/penalty",
}
"""Column of `metrics.csv` in earlier versions → the column now."""

RENAMED_NETWORK_KEYS = {"backbone_checkpoint": "init_from", "taps": "features"}
"""Key of a network in the `config.yaml` of earlier versions → the key now."""

RENAMED_SETTINGS = {
    "adversary.critic_steps": "adversary.n_critic",
    "adversary.form": "adversary.gan_loss",
    "adversary.gan_loss.penalty": "adversary.gan_loss.gradient_penalty_weight",
    "adversary.order": "adversary.update_first",
    "adversary.sees": "adversary.discriminator_input",
    "data.unlabelled": "data.unlabeled",
    "data.unlabelled_ratio": "data.unlabeled_ratio",
    "loss.cirkd.places": "loss.cirkd.max_positions",
    "loss.cirkd_memory.pixels_drawn": "loss.cirkd_memory.num_pixel_samples",
    "loss.cirkd_memory.places": "loss.cirkd_memory.max_positions",
    "loss.cirkd_memory.pushed": "loss.cirkd_memory.pixels_per_class",
    "loss.cirkd_memory.regions": "loss.cirkd_memory.class_source",
    "loss.cirkd_memory.regions_drawn": "loss.cirkd_memory.num_region_samples",
    "loss.ifvd.regions": "loss.ifvd.class_source",
    "loss.lovasz.since": "loss.lovasz.start_at",
    "loss.pairwise.node": "loss.pairwise.node_size",
    "student.backbone_checkpoint": "student.init_from",
    "student.taps": "student.features",
    "teacher.backbone_checkpoint": "teacher.init_from",
    "teacher.taps": "teacher.features",
}
"""Dotted key of a `config.yaml` of version 0.1.0 → the key now; what lies below it moves too."""

RENAMED_VALUES = {
    "adversary.update_first": {"critic_first": "discriminator", "student_first": "student"},
    "teacher.checkpoint": {"included": "pretrained"},
}
"""Key → its value in version 0.1.0 → the value now."""


def rename_metrics(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an `evaluation.json` under today's keys."""
    return {RENAMED_METRICS.get(key, key): value for key, value in evaluation.items()}


def rename_targets(node: Any) -> Any:
    """Return a part of a `config.yaml` whose `_target_` paths are today's."""
    if not isinstance(node, dict):
        return node
    renamed = {key: rename_targets(value) for key, value in node.items()}
    if isinstance(path := node.get("_target_"), str):
        renamed["_target_"] = update_target(path)
    return renamed


def rename_setting(key: str, value: Any) -> tuple[str, Any]:
    """Return a dotted key of a `config.yaml` and its value under today's names."""
    if key.endswith(".tap"):
        return f"{key.removesuffix('.tap')}.feature", RENAMED_FEATURES.get(value, value)
    for old, new in RENAMED_SETTINGS.items():
        if key == old or key.startswith(f"{old}."):
            key = new + key.removeprefix(old)
    return key, RENAMED_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def rename_network_keys(node: dict[str, Any]) -> dict[str, Any]:
    """Return a network's part of a `config.yaml` under today's keys; of an ensemble, its members too."""
    renamed = {RENAMED_NETWORK_KEYS.get(key, key): value for key, value in node.items()}
    if isinstance(features := renamed.get("features"), dict):
        renamed["features"] = {RENAMED_FEATURES.get(name, name): path for name, path in features.items()}
    if isinstance(members := node.get("members"), dict):
        renamed["members"] = {name: rename_network_keys(member) for name, member in members.items()}
    return renamed
