"""ESPNet and its encoder ESPNet-C: efficient spatial pyramids of dilated convolutions.

Mehta et al., *ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation*, ECCV 2018
(arXiv 1803.06815). Widths, dilations and the order of concatenations follow the authors' code (sacmehta/ESPNet), so
that their weights, and those of Liu et al. (structure_knowledge_distillation, branch cvpr_19), load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import ForeignCheckpoint, Normalization, SegmentationModel, add_num_batches_tracked, rename_keys
from segkd.types import FeatureInfo

_DILATIONS = (1, 2, 4, 8, 16)
_EPS = 1e-3  # the authors' BatchNorm
_SKIPS = (16, 19)
_CHANNELS = 256  # of the encoder at width 1


class NormAct(nn.Sequential):
    """BatchNorm and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=_EPS)
        self.act = nn.PReLU(channels)


class ConvNormAct(nn.Sequential):
    """3×3 convolution, BatchNorm and PReLU."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm_act = NormAct(out_channels)


class ESP(nn.Module):
    """Reduce, look at five dilations, and sum the wider ones step by step before they are put side by side.

    The sums (hierarchical feature fusion) remove the gridding of dilated convolutions. With stride 2 the reduction is a
    strided 3×3 convolution instead of a 1×1.
    """

    def __init__(self, channels: int, out_channels: int, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        narrow = out_channels // len(_DILATIONS)
        widest = out_channels - (len(_DILATIONS) - 1) * narrow
        kernel = 1 if stride == 1 else 3
        self.residual = residual and stride == 1
        self.reduce = nn.Conv2d(channels, narrow, kernel, stride, padding=kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, widest if dilation == 1 else narrow, 3, padding=dilation, dilation=dilation, bias=False)
            for dilation in _DILATIONS
        )
        self.norm_act = NormAct(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        first, running, *rest = (branch(reduced) for branch in self.branches)
        fused = [first, running]
        for wider in rest:
            running = running + wider
            fused.append(running)
        combined = torch.cat(fused, 1)
        normalized: Tensor = self.norm_act(x + combined if self.residual else combined)
        return normalized


class Encoder(nn.Module):
    """The three levels of ESPNet-C, at strides 2, 4 and 8.

    Args:
        p: ESP blocks at stride 4.
        q: ESP blocks at stride 8.
        width: factor of all channels but the pooled images'.
    """

    def __init__(self, p: int, q: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is 1 or more, not {width}")
        stem, narrow, wide = 16 * width, 64 * width, 128 * width
        self.stem = ConvNormAct(3, stem, stride=2)
        self.join1 = NormAct(stem + 3)
        self.down2 = ESP(stem + 3, narrow, stride=2)
        self.level2 = nn.Sequential(*(ESP(narrow, narrow) for _ in range(p)))
        self.join2 = NormAct(narrow + narrow + 3)
        self.down3 = ESP(narrow + narrow + 3, wide, stride=2)
        self.level3 = nn.Sequential(*(ESP(wide, wide) for _ in range(q)))
        self.join3 = NormAct(wide + wide)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The stem alone (16), and the joined maps of the three levels (19, 131, 256 channels at width 1)."""
        half = F.avg_pool2d(images, 3, stride=2, padding=1)
        quarter = F.avg_pool2d(half, 3, stride=2, padding=1)
        stem = self.stem(images)
        level1 = self.join1(torch.cat([stem, half], 1))
        down2 = self.down2(level1)
        level2 = self.join2(torch.cat([self.level2(down2), down2, quarter], 1))
        down3 = self.down3(level2)
        level3 = self.join3(torch.cat([down3, self.level3(down3)], 1))
        return stem, level1, level2, level3


class ESPNetC(SegmentationModel):
    """ESPNet-C: the encoder and a 1×1 classifier; class scores at 1/8.

    Args:
        p: ESP blocks at stride 4.
        q: ESP blocks at stride 8; the paper's networks have 3, 5 or 8.
        width: factor of the encoder's channels; the paper's networks have 1, a teacher of the family may have more.
    """

    def __init__(self, num_classes: int, normalization: Normalization, p: int = 2, q: int = 8, width: int = 1) -> None:
        channels = _CHANNELS * width
        features = {"encoder": FeatureInfo(channels, 8), "kd_logits": FeatureInfo(num_classes, 8)}
        super().__init__(num_classes, normalization, features, p=p, q=q, width=width)
        self.encoder = Encoder(p, q, width)
        self.classifier = nn.Conv2d(channels, num_classes, 1, bias=False)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        *_, features = self.encoder(images)
        scores = self.classifier(features)
        return scores, {"encoder": features, "kd_logits": scores}

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
        head = state.get("classifier.conv.weight")
        if head is None or "level1.conv.weight" not in state:
            return None
        num_classes = head.shape[0]
        arguments = {"num_classes": num_classes, "p": _blocks(state, "level2."), "q": _blocks(state, "level3.")}
        # Both authors use the same names here, but Mehta et al. train void as a class of its own, Liu et al. do not.
        by_mehta = num_classes in _OUTPUTS_WITH_VOID
        return _origin(state, arguments, {"classifier.conv.": "classifier.", **_encoder_keys("", state)}, by_mehta)


class ESPNet(SegmentationModel):
    """ESPNet: ESPNet-C and a light decoder that climbs back to full size by transposed convolutions.

    Its 1/8 scores (the feature `kd_logits`, which is also the auxiliary head) are where distillation acts, as the authors of
    SKD did ("in the middle": structure_knowledge_distillation, issue 32).

    Args:
        p: ESP blocks at stride 4.
        q: ESP blocks at stride 8; the paper's networks have 3, 5 or 8.
        skip: channels of the stride-2 map that the decoder joins: 19 (with the pooled image; the authors' training code)
            or 16 (without; their test code and published Cityscapes weights); its 16 are of width 1.
        width: factor of the encoder's channels; the paper's networks have 1, a teacher of the family may have more.
    """

    def __init__(
        self, num_classes: int, normalization: Normalization, p: int = 2, q: int = 8, skip: int = 19, width: int = 1
    ) -> None:
        if skip not in _SKIPS:
            raise UserError(f"skip is 16 or 19, not {skip}")
        if num_classes < len(_DILATIONS):
            raise UserError(
                f"ESPNet's decoder needs {len(_DILATIONS)} classes and more, not {num_classes}; choose espnet_c"
            )
        channels, scores = _CHANNELS * width, FeatureInfo(num_classes, 8)
        features = {"encoder": FeatureInfo(channels, 8), "kd_logits": scores, "auxiliary": scores}
        super().__init__(num_classes, normalization, features, p=p, q=q, skip=skip, width=width)
        self.skip = skip
        self.encoder = Encoder(p, q, width)
        self.classifier = nn.Conv2d(channels, num_classes, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(num_classes, eps=_EPS)
        self.up3 = nn.ConvTranspose2d(num_classes, num_classes, 2, stride=2, bias=False)
        self.project2 = nn.Conv2d(2 * 64 * width + 3, num_classes, 1, bias=False)
        self.join2 = NormAct(2 * num_classes)
        self.fuse2 = ESP(2 * num_classes, num_classes, residual=False)
        self.up2 = nn.ConvTranspose2d(num_classes, num_classes, 2, stride=2, bias=False)
        self.norm_act2 = NormAct(num_classes)
        self.fuse1 = ConvNormAct(num_classes + 16 * width + skip - 16, num_classes)
        self.up1 = nn.ConvTranspose2d(num_classes, num_classes, 2, stride=2, bias=False)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        stem, level1, level2, features = self.encoder(images)
        scores = self.classifier(features)
        up = _crop(self.up3(self.norm3(scores)), level2)
        up = self.fuse2(self.join2(torch.cat([self.project2(level2), up], 1)))
        up = _crop(self.norm_act2(self.up2(up)), level1)
        up = self.fuse1(torch.cat([up, level1 if self.skip == 19 else stem], 1))
        logits = _crop(self.up1(up), images)
        return logits, {"encoder": features, "kd_logits": scores, "auxiliary": scores}

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
        joined = state.get("conv.conv.weight")  # K × (K + skip) × 3 × 3
        if joined is None or "up_l3.0.weight" not in state:
            return None
        nested = "encoder.level1.conv.weight" in state  # as Mehta et al. do; the copy of Liu et al. does not
        inner = "encoder." if nested else ""
        num_classes = joined.shape[0]
        skip = joined.shape[1] - num_classes
        if skip not in _SKIPS:
            return None
        arguments = {
            "num_classes": num_classes,
            "p": _blocks(state, f"{inner}level2."),
            "q": _blocks(state, f"{inner}level3."),
            "skip": skip,
        }
        keys = {
            ("encoder.classifier.conv." if nested else "classifier_1.conv."): "classifier.",
            "br.": "norm3.",
            "up_l3.0.": "up3.",
            "level3_C.conv.": "project2.",
            "combine_l2_l3.0.bn.": "join2.norm.",
            "combine_l2_l3.0.act.": "join2.act.",
            **_esp_keys("combine_l2_l3.1.", "fuse2."),
            "up_l2.0.": "up2.",
            "up_l2.1.bn.": "norm_act2.norm.",
            "up_l2.1.act.": "norm_act2.act.",
            "conv.conv.": "fuse1.conv.",
            "conv.bn.": "fuse1.norm_act.norm.",
            "conv.act.": "fuse1.norm_act.act.",
            "classifier.": "up1.",
        }
        return _origin(state, arguments, {**keys, **_encoder_keys(inner, state)}, by_mehta=nested)


def _crop(x: Tensor, like: Tensor) -> Tensor:
    """`x` cut to the size of `like`: doubling a map of an odd image gives a pixel too many."""
    return x[..., : like.shape[-2], : like.shape[-1]]


def _blocks(state: Mapping[str, Tensor], level: str) -> int:
    return sum(key.startswith(level) and key.endswith(".c1.conv.weight") for key in state)


def _esp_keys(theirs: str, ours: str) -> dict[str, str]:
    branches = {f"{theirs}d{dilation}.conv.": f"{ours}branches.{i}." for i, dilation in enumerate(_DILATIONS)}
    return {
        **branches,
        f"{theirs}c1.conv.": f"{ours}reduce.",
        f"{theirs}bn.": f"{ours}norm_act.norm.",  # strided blocks
        f"{theirs}act.": f"{ours}norm_act.act.",
        f"{theirs}bn.bn.": f"{ours}norm_act.norm.",  # the others
        f"{theirs}bn.act.": f"{ours}norm_act.act.",
    }


def _encoder_keys(inner: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    keys = {
        f"{inner}level1.conv.": "encoder.stem.conv.",
        f"{inner}level1.bn.": "encoder.stem.norm_act.norm.",
        f"{inner}level1.act.": "encoder.stem.norm_act.act.",
        **_esp_keys(f"{inner}level2_0.", "encoder.down2."),
        **_esp_keys(f"{inner}level3_0.", "encoder.down3."),
    }
    for i in (1, 2, 3):
        keys[f"{inner}b{i}.bn."] = f"encoder.join{i}.norm."
        keys[f"{inner}b{i}.act."] = f"encoder.join{i}.act."
    for level in (2, 3):
        for block in range(_blocks(state, f"{inner}level{level}.")):
            keys |= _esp_keys(f"{inner}level{level}.{block}.", f"encoder.level{level}.{block}.")
    return keys


# Liu et al. subtract these (in this order, from BGR images) on Cityscapes and CamVid alike: network statistics of
# Cityscapes' train split that they copied in RGB order (cvpr_19, dataset/cityscapes.py).
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


def _origin(
    state: Mapping[str, Tensor], arguments: dict[str, int], keys: dict[str, str], by_mehta: bool
) -> ForeignCheckpoint:
    weights = add_num_batches_tracked(rename_keys(state, keys))
    if not by_mehta:
        return ForeignCheckpoint("Liu et al., 2019", arguments, Normalization(**_SKD, bgr=True), weights)
    facts = _MEHTA_CAMVID if arguments["num_classes"] in _CAMVID_OUTPUTS else _MEHTA_CITYSCAPES
    over_255 = {"mean": facts["mean"], "std": tuple(255 * s for s in facts["std"])}
    return ForeignCheckpoint("Mehta et al., 2018", arguments, Normalization(**over_255, bgr=True), weights)
