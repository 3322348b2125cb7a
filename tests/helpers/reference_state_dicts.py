"""State dicts with the keys of the authors' code."""

from __future__ import annotations

import torch
from torch import Tensor


def make_espnet_state(
    classes: int, q: int, skip: int | None = None, is_nested: bool = False, has_counters: bool = True
) -> dict[str, Tensor]:
    """Return random weights with the authors' keys: of ESPNet-C without `skip`, else of ESPNet, nested as by Mehta et al."""
    state: dict[str, Tensor] = {}

    def add_conv(name: str, channels: int, out_channels: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(out_channels, channels, kernel, kernel)

    def add_norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(channels)
        if has_counters:
            state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    def add_norm_act(name: str, channels: int) -> None:
        add_norm(f"{name}.bn", channels)
        state[f"{name}.act.weight"] = torch.rand(channels)

    def add_esp(name: str, channels: int, out_channels: int, strided: bool = False) -> None:
        narrow = out_channels // 5
        add_conv(f"{name}.c1.conv", channels, narrow, 3 if strided else 1)
        for dilation in (1, 2, 4, 8, 16):
            add_conv(f"{name}.d{dilation}.conv", narrow, out_channels - 4 * narrow if dilation == 1 else narrow, 3)
        add_norm_act(name if strided else f"{name}.bn", out_channels)

    prefix = "encoder." if is_nested else ""
    add_conv(f"{prefix}level1.conv", 3, 16, 3)
    add_norm_act(f"{prefix}level1", 16)
    add_norm_act(f"{prefix}b1", 19)
    add_esp(f"{prefix}level2_0", 19, 64, strided=True)
    for block in range(2):
        add_esp(f"{prefix}level2.{block}", 64, 64)
    add_norm_act(f"{prefix}b2", 131)
    add_esp(f"{prefix}level3_0", 131, 128, strided=True)
    for block in range(q):
        add_esp(f"{prefix}level3.{block}", 128, 128)
    add_norm_act(f"{prefix}b3", 256)
    if skip is None:
        add_conv("classifier.conv", 256, classes, 1)
        return state
    add_conv("encoder.classifier.conv" if is_nested else "classifier_1.conv", 256, classes, 1)
    add_conv("level3_C.conv", 131, classes, 1)
    add_norm("br", classes)
    add_conv("conv.conv", skip + classes, classes, 3)
    add_norm_act("conv", classes)
    add_conv("up_l3.0", classes, classes, 2)
    add_norm_act("combine_l2_l3.0", 2 * classes)
    add_esp("combine_l2_l3.1", 2 * classes, classes)
    add_conv("up_l2.0", classes, classes, 2)
    add_norm_act("up_l2.1", classes)
    add_conv("classifier", classes, classes, 2)
    return state
