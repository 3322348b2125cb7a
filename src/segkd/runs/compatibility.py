"""Rename the keys of files that earlier versions wrote, so that their runs can be read and compared with new ones."""

from __future__ import annotations

from typing import Any

from segkd.config.renamed_keys import update_key
from segkd.config.renamed_values import update_value
from segkd.config.targets import update_target
from segkd.models.renamed_specs import RENAMED_FEATURES

RENAMED_METRICS = {
    "boundary": "boundary_iou",
    "trimap": "trimap_iou",
    "agreement": "teacher_agreement",
    "categories": "category_iou",
    "instances": "instance_iou",
    "sequences": "per_sequence",
    "interval": "bootstrap_ci",
}
"""Key of `evaluation.json` in earlier versions → the key now; their contents have the same keys as then."""

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


RENAMED_PROTOCOL_WORDS = {"data set": "dataset", "nearest neighbour": "nearest neighbor"}
"""Words in the `protocol` of an `evaluation.json` of earlier versions → the words now, by which scores are compared."""


def rename_metrics(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an `evaluation.json` under today's keys, with its protocol in today's words."""
    renamed = {RENAMED_METRICS.get(key, key): value for key, value in evaluation.items()}
    if isinstance(protocol := renamed.get("protocol"), dict):
        renamed["protocol"] = {key: _rename_words(value) for key, value in protocol.items()}
    return renamed


def _rename_words(value: Any) -> Any:
    for old, new in RENAMED_PROTOCOL_WORDS.items():
        value = value.replace(old, new) if isinstance(value, str) else value
    return value


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
    key = update_key(key)
    network, _, name = key.rpartition(".features.")
    if network and name in RENAMED_FEATURES:
        key = f"{network}.features.{RENAMED_FEATURES[name]}"
    return key, update_value(key, value)


def rename_network_keys(node: dict[str, Any]) -> dict[str, Any]:
    """Return a network's part of a `config.yaml` under today's keys; of an ensemble, its members too."""
    renamed = {RENAMED_NETWORK_KEYS.get(key, key): value for key, value in node.items()}
    if isinstance(features := renamed.get("features"), dict):
        renamed["features"] = {RENAMED_FEATURES.get(name, name): path for name, path in features.items()}
    if isinstance(members := node.get("members"), dict):
        renamed["members"] = {name: rename_network_keys(member) for name, member in members.items()}
    return renamed
