"""Dilated residual networks, the backbones of PSPNet.

He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016 (arXiv 1512.03385).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of each stage, by depth."""


class BasicBlock(nn.Module):
    """A residual block of two 3×3 convolutions."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _build_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A residual block of a 1×1, a 3×3 and an expanding 1×1 convolution."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _build_shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A residual network of stride 8 with torchvision's keys: its last two stages dilate by 2 and 4 instead of striding.

    Args:
        depth: 18, 50 or 101.
        width: channels of the first stage.
        deep_stem: three 3×3 convolutions instead of one 7×7.
    """

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
        counts = BLOCKS[depth]
        self.layer1 = _build_stage(block, 128 if deep_stem else 64, width, counts[0])
        self.layer2 = _build_stage(block, width * block.expansion, 2 * width, counts[1], stride=2)
        self.layer3 = _build_stage(block, 2 * width * block.expansion, 4 * width, counts[2], dilation=2)
        self.layer4 = _build_stage(block, 4 * width * block.expansion, 8 * width, counts[3], dilation=4)
        self.channels = 8 * width * block.expansion

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps after the third and the fourth stage, both at stride 8."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.deep_stem:
            x = F.relu(self.bn2(self.conv2(x)))
            x = F.relu(self.bn3(self.conv3(x)))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)  # ceil: a crop of 512 gives 65×65 maps, as in the reference
        third = self.layer3(self.layer2(self.layer1(x)))
        return third, self.layer4(third)


def _build_shortcut(channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _build_stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    count: int,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    rest = (block(width * block.expansion, width, 1, dilation) for _ in range(count - 1))
    return nn.Sequential(block(channels, width, stride, dilation), *rest)
