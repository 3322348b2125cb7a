"""ENet: a deep narrow encoder and a shallow decoder that unpools with the encoder's pooling indices.

Paszke et al., *ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation*, 2016 (arXiv 1606.02147).

Where the paper leaves a choice, the network matches the counts of Liu et al. (2019) to their last digit (19 classes: 0.3580 M
parameters, 3.612 G multiply-accumulates without the transposed convolutions): no convolution has a bias, a PReLU has one slope,
a strided block narrows to a quarter of its input channels, and the last convolution is 3×3. The authors' Torch code (biases, a
slope per channel, a quarter of the output channels, 2×2) would have 364,311 parameters.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.layers import SampleDropout2d, pad_to_multiple, unpool
from segkd.types import FeatureInfo

_STRIDE = 8
_CONTEXT = ((3, 1), (3, 2), (5, 1), (3, 4), (3, 1), (3, 8), (5, 1), (3, 16))
"""Kernel and dilation of the eight blocks of a context stage; a kernel of 5 is 5×1 and 1×5 (table 1)."""

Activation = type[nn.PReLU] | type[nn.ReLU]


class Branch(nn.Sequential):
    """The residual branch: reduce, convolve, expand, drop out; BatchNorm after each convolution, activation after all but the last."""

    def __init__(
        self,
        reduce: nn.Module,
        middle: list[nn.Module],
        widths: tuple[int, int],
        act: Activation,
        drop: SampleDropout2d,
    ) -> None:
        narrow, out_channels = widths
        convolved = [layer for convolution in middle for layer in (convolution, nn.BatchNorm2d(narrow), act())]
        expand = nn.Conv2d(narrow, out_channels, 1, bias=False)
        super().__init__(reduce, nn.BatchNorm2d(narrow), act(), *convolved, expand, nn.BatchNorm2d(out_channels), drop)


class Bottleneck(nn.Module):
    """A residual block with a bottleneck of a quarter of the channels: regular, dilated, or asymmetric where the kernel is 5."""

    def __init__(
        self, channels: int, act: Activation, drop: SampleDropout2d, kernel: int = 3, dilation: int = 1
    ) -> None:
        super().__init__()
        narrow, side = channels // 4, kernel // 2
        middle: list[nn.Module] = [
            nn.Conv2d(narrow, narrow, 3, padding=dilation, dilation=dilation, bias=False)
        ] if kernel == 3 else [
            nn.Conv2d(narrow, narrow, (kernel, 1), padding=(side, 0), bias=False),
            nn.Conv2d(narrow, narrow, (1, kernel), padding=(0, side), bias=False),
        ]  # fmt: skip
        self.branch = Branch(nn.Conv2d(channels, narrow, 1, bias=False), middle, (narrow, channels), act, drop)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        activated: Tensor = self.act(x + self.branch(x))
        return activated


class Initial(nn.Module):
    """Thirteen strided filters concatenated with the max-pooled image: 16 channels at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.norm_act = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Return B 16 H/2 W/2."""
        joined: Tensor = self.norm_act(torch.cat([self.conv(images), F.max_pool2d(images, 2)], 1))
        return joined


class Down(nn.Module):
    """Downsampling by 2: a strided branch added to a max-pooling with zero channels appended."""

    def __init__(self, channels: int, out_channels: int, drop: SampleDropout2d) -> None:
        super().__init__()
        narrow = channels // 4
        reduce = nn.Conv2d(channels, narrow, 2, stride=2, bias=False)
        middle: list[nn.Module] = [nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)]
        self.branch = Branch(reduce, middle, (narrow, out_channels), nn.PReLU, drop)
        self.act = nn.PReLU()
        self.extra_channels = out_channels - channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map and the indices of the pooled maxima, both B C h/2 w/2."""
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return self.act(F.pad(pooled, (0, 0, 0, 0, 0, self.extra_channels)) + self.branch(x)), indices


class Up(nn.Module):
    """Upsampling by 2: a transposed convolution added to an unpooling to the positions of the encoder's maxima."""

    def __init__(self, channels: int, out_channels: int, drop: SampleDropout2d) -> None:
        super().__init__()
        narrow = channels // 4
        reduce = nn.Conv2d(channels, narrow, 1, bias=False)
        self.branch = Branch(reduce, [_build_upsampling(narrow, narrow)], (narrow, out_channels), nn.ReLU, drop)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Return B C 2h 2w."""
        return F.relu(unpool(self.shortcut(x), indices) + self.branch(x))


def _build_upsampling(channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False)


class ENet(SegmentationModel):
    """ENet; logits at full size.

    It has no classifier before its end (its authors train one on the encoder first and discard it), so the feature `kd_logits`
    is its output, B K H W. The feature `encoder` is B 128 H/8 W/8. Images are padded with zeros to multiples of 8.

    Args:
        num_classes: K.
        normalization: of the images.
        dropout: share of channels dropped, per sample, at the end of each block from stride 8 on.
        dropout_early: the same in the blocks before.
    """

    unpools = True

    def __init__(
        self, num_classes: int, normalization: Normalization, dropout: float = 0.1, dropout_early: float = 0.01
    ) -> None:
        features = {"encoder": FeatureInfo(128, _STRIDE), "kd_logits": FeatureInfo(num_classes, 1)}
        super().__init__(num_classes, normalization, features, dropout=dropout, dropout_early=dropout_early)
        early, late = _generate_dropouts(dropout_early, 0), _generate_dropouts(dropout, 5)
        self.initial = Initial()
        self.down1 = Down(16, 64, next(early))
        self.stage1 = nn.Sequential(*(Bottleneck(64, nn.PReLU, next(early)) for _ in range(4)))
        self.down2 = Down(64, 128, next(late))
        self.context = nn.Sequential(*(Bottleneck(128, nn.PReLU, next(late), *block) for block in 2 * _CONTEXT))
        self.up2 = Up(128, 64, next(late))
        self.stage4 = nn.Sequential(*(Bottleneck(64, nn.ReLU, next(late)) for _ in range(2)))
        self.up1 = Up(64, 16, next(late))
        self.stage5 = Bottleneck(16, nn.ReLU, next(late))
        self.classifier = _build_upsampling(16, num_classes)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits B K H W and the features of normalized images."""
        height, width = images.shape[-2:]
        quarter, indices1 = self.down1(self.initial(pad_to_multiple(images, _STRIDE)))
        eighth, indices2 = self.down2(self.stage1(quarter))
        features = self.context(eighth)
        up = self.stage4(self.up2(features, indices2))
        up = self.stage5(self.up1(up, indices1))
        logits = self.classifier(up)[..., :height, :width]
        return logits, {"encoder": features, "kd_logits": logits}


def _generate_dropouts(p: float, salt: int) -> Iterator[SampleDropout2d]:
    """Yield dropout layers with consecutive salts."""
    while True:
        yield SampleDropout2d(p, salt)
        salt += 1
