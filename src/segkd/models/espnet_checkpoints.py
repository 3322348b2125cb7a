"""Checkpoints of ESPNet's authors and of Liu et al.: recognizing them by their keys, and converting them.

Mehta et al. (sacmehta/ESPNet) and Liu et al. (structure_knowledge_distillation, branch cvpr_19) use nearly the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from segkd.models.base import ForeignCheckpoint, Normalization, add_num_batches_tracked, rename_keys

DILATIONS = (1, 2, 4, 8, 16)
"""Of the branches of an ESP block."""

SKIP_CHANNELS = (16, 19)
"""Channels of the stride-2 map that the decoder may concatenate."""

# Liu et al. subtract these (in this order, from BGR images) on both Cityscapes and CamVid: statistics of Cityscapes' train split
# that they copied in RGB order (cvpr_19, dataset/cityscapes.py).
_SKD = {"mean": (72.41519599, 82.93553322, 73.18188461), "std": (44.9148, 46.1528, 45.3199)}
# Mehta et al.: mean of the images' means and of their standard deviations, then /255 (test/VisualizeResults.py; for
# CamVid train/loadData.py over its 367 training images).
_MEHTA_CITYSCAPES = {"mean": (73.15840149, 82.90893555, 72.3923111), "std": (44.91483307, 46.15289307, 45.3192215)}
_MEHTA_CAMVID = {
    "mean": (105.03321838378906, 108.40888977050781, 110.3310546875),
    "std": (69.90434265136719, 72.69076538085938, 72.12568664550781),
}
_CAMVID_OUTPUTS = (11, 12)
_OUTPUTS_WITH_VOID = (12, 20)  # CamVid's 11 classes and Cityscapes' 19, and void


def match_espnet_c(state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
    """Return the checkpoint of an ESPNet-C under segkd's names, or None for other state dicts."""
    head = state.get("classifier.conv.weight")
    if head is None or "level1.conv.weight" not in state:
        return None
    num_classes = head.shape[0]
    arguments = {"num_classes": num_classes, "p": _count_blocks(state, "level2."), "q": _count_blocks(state, "level3.")}
    # Both authors use the same keys here, but Mehta et al. train void as a class of its own, Liu et al. do not.
    by_mehta = num_classes in _OUTPUTS_WITH_VOID
    return _make_checkpoint(
        state, arguments, {"classifier.conv.": "classifier.", **_map_encoder_keys(state, "")}, by_mehta
    )


def match_espnet(state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
    """Return the checkpoint of an ESPNet under segkd's names, or None for other state dicts."""
    fusion = state.get("conv.conv.weight")  # K × (K + skip) × 3 × 3
    if fusion is None or "up_l3.0.weight" not in state:
        return None
    is_nested = "encoder.level1.conv.weight" in state  # in the code of Mehta et al., not in that of Liu et al.
    prefix = "encoder." if is_nested else ""
    num_classes = fusion.shape[0]
    skip = fusion.shape[1] - num_classes
    if skip not in SKIP_CHANNELS:
        return None
    arguments = {
        "num_classes": num_classes,
        "p": _count_blocks(state, f"{prefix}level2."),
        "q": _count_blocks(state, f"{prefix}level3."),
        "skip": skip,
    }
    keys = {
        ("encoder.classifier.conv." if is_nested else "classifier_1.conv."): "classifier.",
        "br.": "norm3.",
        "up_l3.0.": "up3.",
        "level3_C.conv.": "project2.",
        "combine_l2_l3.0.bn.": "join2.norm.",
        "combine_l2_l3.0.act.": "join2.act.",
        **_map_esp_keys("combine_l2_l3.1.", "fuse2."),
        "up_l2.0.": "up2.",
        "up_l2.1.bn.": "norm_act2.norm.",
        "up_l2.1.act.": "norm_act2.act.",
        "conv.conv.": "fuse1.conv.",
        "conv.bn.": "fuse1.norm_act.norm.",
        "conv.act.": "fuse1.norm_act.act.",
        "classifier.": "up1.",
    }
    return _make_checkpoint(state, arguments, {**keys, **_map_encoder_keys(state, prefix)}, by_mehta=is_nested)


def _count_blocks(state: Mapping[str, Tensor], level: str) -> int:
    return sum(key.startswith(level) and key.endswith(".c1.conv.weight") for key in state)


def _map_esp_keys(old: str, new: str) -> dict[str, str]:
    """Return the key prefixes of an ESP block → segkd's."""
    branches = {f"{old}d{dilation}.conv.": f"{new}branches.{i}." for i, dilation in enumerate(DILATIONS)}
    return {
        **branches,
        f"{old}c1.conv.": f"{new}reduce.",
        f"{old}bn.": f"{new}norm_act.norm.",  # strided blocks
        f"{old}act.": f"{new}norm_act.act.",
        f"{old}bn.bn.": f"{new}norm_act.norm.",  # other blocks
        f"{old}bn.act.": f"{new}norm_act.act.",
    }


def _map_encoder_keys(state: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Return the key prefixes of the encoder, which lies under `prefix` → segkd's."""
    keys = {
        f"{prefix}level1.conv.": "encoder.stem.conv.",
        f"{prefix}level1.bn.": "encoder.stem.norm_act.norm.",
        f"{prefix}level1.act.": "encoder.stem.norm_act.act.",
        **_map_esp_keys(f"{prefix}level2_0.", "encoder.down2."),
        **_map_esp_keys(f"{prefix}level3_0.", "encoder.down3."),
    }
    for i in (1, 2, 3):
        keys[f"{prefix}b{i}.bn."] = f"encoder.join{i}.norm."
        keys[f"{prefix}b{i}.act."] = f"encoder.join{i}.act."
    for level in (2, 3):
        for block in range(_count_blocks(state, f"{prefix}level{level}.")):
            keys |= _map_esp_keys(f"{prefix}level{level}.{block}.", f"encoder.level{level}.{block}.")
    return keys


def _make_checkpoint(
    state: Mapping[str, Tensor], arguments: dict[str, int], keys: dict[str, str], by_mehta: bool
) -> ForeignCheckpoint:
    weights = add_num_batches_tracked(rename_keys(state, keys))
    if not by_mehta:
        return ForeignCheckpoint("Liu et al., 2019", arguments, Normalization(**_SKD, bgr=True), weights)
    statistics = _MEHTA_CAMVID if arguments["num_classes"] in _CAMVID_OUTPUTS else _MEHTA_CITYSCAPES
    over_255 = {"mean": statistics["mean"], "std": tuple(255 * s for s in statistics["std"])}
    return ForeignCheckpoint("Mehta et al., 2018", arguments, Normalization(**over_255, bgr=True), weights)
