"""PSPNet on dilated residual networks: the teacher of Liu et al. (2019) and its smaller relatives.

Zhao et al., *Pyramid Scene Parsing Network*, CVPR 2017 (arXiv 1612.01105). Two lines of descent, as in the code of
structure_knowledge_distillation:

- the 7×7 stem with torchvision's keys (`pspnet_resnet18`, `pspnet_resnet18_half`: the paper's students), pyramid without
  activations;
- the deep stem of three 3×3 convolutions (`pspnet_resnet18_deep`, `pspnet_resnet101`: the published code), pyramid and
  auxiliary head with leaky ReLU 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import ForeignCheckpoint, Normalization, SegmentationModel, rename_keys
from segkd.models.layers import SampleDropout2d
from segkd.types import FeatureInfo, resize

_BINS = (1, 2, 3, 6)
_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    count: int,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    rest = (block(width * block.expansion, width, 1, dilation) for _ in range(count - 1))
    return nn.Sequential(block(channels, width, stride, dilation), *rest)


class ResNet(nn.Module):
    """A residual network of stride 8: its last two stages dilate by 2 and 4 instead of striding. Keys are torchvision's."""

    def __init__(self, depth: int, width: int, deep_stem: bool) -> None:
        super().__init__()
        self.deep_stem = deep_stem
        if deep_stem:
            self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.conv2 = nn.Conv2d(64, 64, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(64)
            self.conv3 = nn.Conv2d(64, 128, 3, 1, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(128)
        else:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        block = BasicBlock if depth == 18 else Bottleneck
        counts = _BLOCKS[depth]
        self.layer1 = _stage(block, 128 if deep_stem else 64, width, counts[0])
        self.layer2 = _stage(block, width * block.expansion, 2 * width, counts[1], stride=2)
        self.layer3 = _stage(block, 2 * width * block.expansion, 4 * width, counts[2], dilation=2)
        self.layer4 = _stage(block, 4 * width * block.expansion, 8 * width, counts[3], dilation=4)
        self.channels = 8 * width * block.expansion

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps after the third and the fourth stage, both at stride 8."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.deep_stem:
            x = F.relu(self.bn2(self.conv2(x)))
            x = F.relu(self.bn3(self.conv3(x)))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)  # ceil: a crop of 512 gives 65×65 maps, as in the reference
        third = self.layer3(self.layer2(self.layer1(x)))
        return third, self.layer4(third)


class Pyramid(nn.Module):
    """Means over 1, 4, 9 and 36 regions, beside the map itself, fused by a 3×3 convolution.

    `slope` is the leaky ReLU's after each normalisation; 1 means none.
    """

    def __init__(self, channels: int, out_channels: int, slope: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            for bins in _BINS
        )
        fused = channels + len(_BINS) * out_channels
        self.bottleneck = nn.Sequential(
            nn.Conv2d(fused, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        means = [resize(self._activate(stage(x)), size, align_corners=True) for stage in self.stages]
        return self._activate(self.bottleneck(torch.cat([*means, x], 1)))

    def _activate(self, x: Tensor) -> Tensor:
        return x if self.slope == 1 else F.leaky_relu(x, self.slope)


class PSPNet(SegmentationModel):
    """PSPNet on a dilated residual network; class scores at 1/8.

    Args:
        depth: 18, 50 or 101.
        width: channels of the first stage; 64, or 32 for the paper's ResNet18 (0.5).
        deep_stem: three 3×3 convolutions instead of one 7×7.
        pyramid: channels of the pyramid, which are those of the feature `encoder`.
        slope: leaky ReLU of pyramid and auxiliary head; 1 means none.
        auxiliary: a side head on the third stage, for the supervised loss alone.
        dropout: share of channels dropped before each classifier, per sample.
    """

    min_size = 33

    def __init__(
        self,
        num_classes: int,
        normalization: Normalization,
        depth: int = 18,
        width: int = 64,
        deep_stem: bool = False,
        pyramid: int = 256,
        slope: float = 1.0,
        auxiliary: bool = False,
        dropout: float = 0.1,
    ) -> None:
        if depth not in _BLOCKS:
            raise UserError(f"depth is one of {', '.join(map(str, _BLOCKS))}, not {depth}")
        features = {"encoder": FeatureInfo(pyramid, 8), "kd_logits": FeatureInfo(num_classes, 8)}
        if auxiliary:
            features["auxiliary"] = FeatureInfo(num_classes, 8)
        super().__init__(
            num_classes,
            normalization,
            features,
            depth=depth,
            width=width,
            deep_stem=deep_stem,
            pyramid=pyramid,
            slope=slope,
            auxiliary=auxiliary,
            dropout=dropout,
        )
        self.backbone = ResNet(depth, width, deep_stem)
        deep = self.backbone.channels
        self.features["backbone"] = FeatureInfo(deep, 8)
        self.pyramid = Pyramid(deep, pyramid, slope)
        self.dropout = SampleDropout2d(dropout)
        self.classifier = nn.Conv2d(pyramid, num_classes, 1)
        self.auxiliary = (
            nn.Sequential(
                nn.Conv2d(deep // 2, pyramid, 3, padding=1),
                nn.BatchNorm2d(pyramid),
                nn.LeakyReLU(slope) if slope != 1 else nn.Identity(),
                SampleDropout2d(dropout, salt=1),
                nn.Conv2d(pyramid, num_classes, 1),
            )
            if auxiliary
            else None
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training and len(images) == 1:
            raise UserError(
                "PSPNet's pyramid normalises one value per image and needs 2 images at once to train; "
                "raise data.batch_size, or lower trainer.micro_batches"
            )
        third, deepest = self.backbone(images)
        pooled = self.pyramid(deepest)
        scores = self.classifier(self.dropout(pooled))
        features = {"backbone": deepest, "encoder": pooled, "kd_logits": scores}
        if self.auxiliary is not None:
            features["auxiliary"] = self.auxiliary(third)
        return scores, features

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
        head, narrow = state.get("head.weight"), state.get("layer1.0.conv1.weight")
        if head is None or narrow is None or not {"pspmodule.bottleneck.0.weight", "conv3.weight"} <= state.keys():
            return None
        blocks = [_count(state, f"layer{i}.") for i in range(1, 5)]
        depth = next((d for d, b in _BLOCKS.items() if list(b) == blocks), None)
        if depth is None:
            return None
        arguments = {
            "num_classes": head.shape[0],
            "depth": depth,
            "width": narrow.shape[0],
            "deep_stem": True,
            "pyramid": head.shape[1],
            "slope": 0.01,
            "auxiliary": "dsn.0.weight" in state,
        }
        keys = {"pspmodule.": "pyramid.", "head.": "classifier.", "dsn.3.": "auxiliary.4.", "dsn.": "auxiliary."}
        stem = {f"{name}.": f"backbone.{name}." for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")}
        stages = {f"layer{i}.": f"backbone.layer{i}." for i in range(1, 5)}
        renamed = rename_keys(state, {**keys, **stem, **stages})
        # Caffe's statistics, without a scale: BGR minus mean in 0..255 (utils/train_options.py of the reference).
        normalization = Normalization((122.67891434, 116.66876762, 104.00698793), (1.0, 1.0, 1.0), bgr=True)
        return ForeignCheckpoint("Liu et al., 2019", arguments, normalization, _inplace_to_batchnorm(renamed))


def _count(state: Mapping[str, Tensor], stage: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(stage)})


def _inplace_to_batchnorm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In-place ABN multiplies by |γ| + ε; every normalisation of the reference is one (libs/src/bn.cu)."""

    def is_gamma(key: str) -> bool:
        return key.endswith(".weight") and key.removesuffix("weight") + "running_var" in state

    return {key: value.abs() + 1e-5 if is_gamma(key) else value for key, value in state.items()}
