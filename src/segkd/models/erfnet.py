"""ERFNet: residual blocks of 3×1 and 1×3 convolutions, half of them dilated.

Romera et al., *ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation*, IEEE Transactions on
Intelligent Transportation Systems 19(1), 2018. ε and the dropout rates follow the authors' code (Eromera/erfnet_pytorch).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.layers import SampleDropout2d, pad_to_multiple
from segkd.types import FeatureInfo

_EPS = 1e-3
_STRIDE = 8
_DILATIONS = (2, 4, 8, 16)


class Down(nn.Module):
    """Downsampling by 2: a strided convolution concatenated with a max-pooling."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels - channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h/2 w/2."""
        return F.relu(self.norm(torch.cat([self.conv(x), F.max_pool2d(x, 2)], 1)))


class Up(nn.Module):
    """Upsampling by 2 with a transposed convolution."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.BatchNorm2d(out_channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return B C 2h 2w."""
        return F.relu(self.norm(self.conv(x)))


class Factorized(nn.Module):
    """A residual block of two factorized 3×3 convolutions (3×1, 1×3), the second dilated: the paper's non-bottleneck-1D."""

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0, salt: int = 0) -> None:
        super().__init__()

        def build_pair(dilation: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
                nn.ReLU(),
                nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)),
                nn.BatchNorm2d(channels, eps=_EPS),
            ]

        self.branch = nn.Sequential(*build_pair(1), nn.ReLU(), *build_pair(dilation), SampleDropout2d(dropout, salt))

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        return F.relu(x + self.branch(x))


class ERFNet(SegmentationModel):
    """ERFNet; logits at full size.

    The authors train the encoder first, with a 1×1 classifier that stays in their network. Its logits are the feature
    `kd_logits`, B K H/8 W/8, and also the auxiliary head, which keeps it trained. `encoder` is B 128 H/8 W/8. Images are padded
    with zeros to multiples of 8.

    Args:
        num_classes: K.
        normalization: of the images.
        dropout: share of channels dropped, per sample, at the end of each block at stride 8.
        dropout_early: the same at stride 4.
    """

    def __init__(
        self, num_classes: int, normalization: Normalization, dropout: float = 0.3, dropout_early: float = 0.03
    ) -> None:
        head = FeatureInfo(num_classes, _STRIDE)
        features = {"encoder": FeatureInfo(128, _STRIDE), "kd_logits": head, "auxiliary": head}
        super().__init__(num_classes, normalization, features, dropout=dropout, dropout_early=dropout_early)
        self.encoder = nn.Sequential(
            Down(3, 16),
            Down(16, 64),
            *(Factorized(64, dropout=dropout_early, salt=salt) for salt in range(5)),
            Down(64, 128),
            *(Factorized(128, dilation, dropout, salt) for salt, dilation in enumerate(2 * _DILATIONS, start=5)),
        )
        self.head = nn.Conv2d(128, num_classes, 1)
        self.decoder = nn.Sequential(
            Up(128, 64), Factorized(64), Factorized(64), Up(64, 16), Factorized(16), Factorized(16)
        )
        self.classifier = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits B K H W and the features of normalized images."""
        height, width = images.shape[-2:]
        features = self.encoder(pad_to_multiple(images, _STRIDE))
        kd_logits = self.head(features)
        logits = self.classifier(self.decoder(features))[..., :height, :width]
        return logits, {"encoder": features, "kd_logits": kd_logits, "auxiliary": kd_logits}
