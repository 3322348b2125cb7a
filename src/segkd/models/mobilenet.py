"""MobileNetV2Plus: a dilated MobileNetV2 whose stages are concatenated, a spatial pyramid and one upsampling step.

Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018 (arXiv 1801.04381), in the form of
ansleliu/LightNet, which Liu et al. (2019) distilled: squeeze and excitation in space and channels (Roy et al., MICCAI 2018,
arXiv 1803.02579) and atrous spatial pyramid pooling (Chen et al., 2017, arXiv 1706.05587).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.layers import SampleDropout2d, divide_up, initialize_convolutions, pad_to_multiple
from segkd.types import FeatureInfo, resize

_STRIDE = 8
_SLOPE = 0.01  # of the activated BatchNorm (in-place ABN) that LightNet uses
_STAGES = (  # expansion, channels, blocks, stride, dilation: table 2 of the paper, striding no further than 8
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 1),
    (6, 64, 4, 1, 2),
    (6, 96, 3, 1, 4),
    (6, 160, 3, 1, 8),
    (6, 320, 1, 1, 16),
)
_RATES = (12, 24, 36)


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise 3×3, linear 1×1 projection; a shortcut where the shapes allow it."""

    def __init__(self, channels: int, out_channels: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.residual = stride == 1 and channels == out_channels
        self.branch = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, dilation, dilation, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


class SqueezeExcite(nn.Module):
    """Concurrent squeeze and excitation: the map weighted by channel plus the map weighted by position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 16
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1)
        )
        self.place = nn.Conv2d(channels, 1, 1, bias=False)  # saved students have this key

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        by_channel, by_position = torch.sigmoid(self.channel(x)), torch.sigmoid(self.place(x))
        return x * by_channel + x * by_position


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: the mean, a 1×1 and three dilated 3×3 convolutions, fused."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm_act = _build_norm_act(channels)
        self.mean = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(channels, out_channels, 1, bias=False),
                *(nn.Conv2d(channels, out_channels, 3, padding=r, dilation=r, bias=False) for r in _RATES),
            ]
        )
        joined = (2 + len(_RATES)) * out_channels
        self.fuse = nn.Sequential(_build_norm_act(joined), nn.Conv2d(joined, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        x = self.norm_act(x)
        branches = [branch(x) for branch in self.branches]
        mean = self.mean(x.mean((2, 3), keepdim=True)).expand_as(branches[0])
        fused: Tensor = self.fuse(torch.cat([mean, *branches], 1))
        return fused


class MobileNetV2Plus(SegmentationModel):
    """MobileNetV2Plus; logits at 1/4.

    It has one classifier, at its end, so the feature `kd_logits` is its output, B K H/4 W/4. The feature `encoder` is the output
    of the pyramid, B 256 H/8 W/8. Images are padded with zeros to multiples of 8. Unlike LightNet's, the pyramid adds no border
    to its map (a padded 1×1 convolution there, which moves everything outward), and maps are upsampled with aligned corners, as
    Liu et al. evaluate.

    Args:
        num_classes: K.
        normalization: of the images.
        pyramid: channels of the pyramid, which are those of the feature `encoder`.
        dropout: share of channels dropped after the pyramid, per sample.
    """

    def __init__(
        self, num_classes: int, normalization: Normalization, pyramid: int = 256, dropout: float = 0.2
    ) -> None:
        features = {"encoder": FeatureInfo(pyramid, _STRIDE), "kd_logits": FeatureInfo(num_classes, 4)}
        super().__init__(num_classes, normalization, features, pyramid=pyramid, dropout=dropout)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stages = nn.ModuleList()
        channels = 32
        for expansion, width, count, stride, dilation in _STAGES:
            blocks = [InvertedResidual(channels, width, expansion, stride, dilation)]
            blocks += [InvertedResidual(width, width, expansion, 1, dilation) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels = width
        total = sum(width for _, width, *_ in _STAGES)
        self.excite = SqueezeExcite(total)
        self.pyramid = Pyramid(total, pyramid)
        self.dropout = SampleDropout2d(dropout)
        joined = pyramid + _STAGES[1][1] + _STAGES[0][1]
        self.classifier = nn.Sequential(
            SqueezeExcite(joined),
            _build_norm_act(joined),
            nn.Conv2d(joined, joined, 3, padding=2, dilation=2, bias=False),
            _build_norm_act(joined),
            nn.Conv2d(joined, num_classes, 1),
        )
        initialize_convolutions(self, mode="fan_out")

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits B K H/4 W/4 and the features of normalized images."""
        height, width = images.shape[-2:]
        x, maps = self.stem(pad_to_multiple(images, _STRIDE)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        half, quarter, *eighths = maps
        half_as_quarter = _halve(half)
        concatenated = torch.cat([*eighths, _halve(half_as_quarter), _halve(quarter)], 1)
        features = self.pyramid(self.excite(concatenated))
        up = resize(self.dropout(features), (quarter.shape[-2], quarter.shape[-1]), self.align_corners)
        logits = self.classifier(torch.cat([up, quarter, half_as_quarter], 1))
        logits = logits[..., : divide_up(height, 4), : divide_up(width, 4)]
        return logits, {"encoder": features, "kd_logits": logits}


def _build_norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(_SLOPE))


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)
