"""Random weights under the names of the authors' code."""

from __future__ import annotations

import torch
from torch import Tensor


def espnet_state(
    classes: int, q: int, skip: int | None = None, nested: bool = False, counted: bool = True
) -> dict[str, Tensor]:
    """Random weights under the names of the authors' code: ESPNet-C without `skip`, else ESPNet, nested as by Mehta et al."""
    state: dict[str, Tensor] = {}

    def conv(name: str, channels: int, out_channels: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(out_channels, channels, kernel, kernel)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(channels)
        if counted:
            state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    def norm_act(name: str, channels: int) -> None:
        norm(f"{name}.bn", channels)
        state[f"{name}.act.weight"] = torch.rand(channels)

    def esp(name: str, channels: int, out_channels: int, strided: bool = False) -> None:
        narrow = out_channels // 5
        conv(f"{name}.c1.conv", channels, narrow, 3 if strided else 1)
        for dilation in (1, 2, 4, 8, 16):
            conv(f"{name}.d{dilation}.conv", narrow, out_channels - 4 * narrow if dilation == 1 else narrow, 3)
        norm_act(name if strided else f"{name}.bn", out_channels)

    inner = "encoder." if nested else ""
    conv(f"{inner}level1.conv", 3, 16, 3)
    norm_act(f"{inner}level1", 16)
    norm_act(f"{inner}b1", 19)
    esp(f"{inner}level2_0", 19, 64, strided=True)
    for block in range(2):
        esp(f"{inner}level2.{block}", 64, 64)
    norm_act(f"{inner}b2", 131)
    esp(f"{inner}level3_0", 131, 128, strided=True)
    for block in range(q):
        esp(f"{inner}level3.{block}", 128, 128)
    norm_act(f"{inner}b3", 256)
    if skip is None:
        conv("classifier.conv", 256, classes, 1)
        return state
    conv("encoder.classifier.conv" if nested else "classifier_1.conv", 256, classes, 1)
    conv("level3_C.conv", 131, classes, 1)
    norm("br", classes)
    conv("conv.conv", skip + classes, classes, 3)
    norm_act("conv", classes)
    conv("up_l3.0", classes, classes, 2)
    norm_act("combine_l2_l3.0", 2 * classes)
    esp("combine_l2_l3.1", 2 * classes, classes)
    conv("up_l2.0", classes, classes, 2)
    norm_act("up_l2.1", classes)
    conv("classifier", classes, classes, 2)
    return state
