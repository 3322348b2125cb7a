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
from segkd.models.base import ForeignCheckpoint, Normalization, SegmentationModel
from segkd.models.espnet_checkpoints import DILATIONS, SKIP_CHANNELS, match_espnet, match_espnet_c
from segkd.types import FeatureInfo

_EPS = 1e-3  # the authors' BatchNorm
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
    """Efficient spatial pyramid: a reduction, five dilated convolutions, cumulative sums of their maps, concatenation.

    The sums (hierarchical feature fusion) remove the gridding artifacts of dilated convolutions. With stride 2 the reduction is
    a strided 3×3 convolution instead of a 1×1.
    """

    def __init__(self, channels: int, out_channels: int, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        narrow = out_channels // len(DILATIONS)
        widest = out_channels - (len(DILATIONS) - 1) * narrow
        kernel = 1 if stride == 1 else 3
        self.residual = residual and stride == 1
        self.reduce = nn.Conv2d(channels, narrow, kernel, stride, padding=kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, widest if dilation == 1 else narrow, 3, padding=dilation, dilation=dilation, bias=False)
            for dilation in DILATIONS
        )
        self.norm_act = NormAct(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w, at stride 2 B C h/2 w/2."""
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
        width: factor of all channels except the pooled images'.
    """

    def __init__(self, p: int, q: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be 1 or more, not {width}")
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
        """Return the stem (16 channels at width 1) and the concatenated maps of the three levels (19, 131, 256)."""
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
    """ESPNet-C: the encoder and a 1×1 classifier; logits at 1/8.

    Args:
        num_classes: K.
        normalization: of the images.
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
        """Return logits B K H/8 W/8 and the features of normalized images."""
        *_, features = self.encoder(images)
        logits = self.classifier(features)
        return logits, {"encoder": features, "kd_logits": logits}

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
        """Return the checkpoint if Mehta et al. or Liu et al. wrote it."""
        return match_espnet_c(state)


class ESPNet(SegmentationModel):
    """ESPNet: ESPNet-C and a light decoder that upsamples to full size by transposed convolutions.

    Distillation acts on its logits at 1/8 (the feature `kd_logits`, which is also the auxiliary head), as the authors of SKD do
    ("in the middle": structure_knowledge_distillation, issue 32).

    Args:
        num_classes: K, 5 or more.
        normalization: of the images.
        p: ESP blocks at stride 4.
        q: ESP blocks at stride 8; the paper's networks have 3, 5 or 8.
        skip: channels of the stride-2 map that the decoder concatenates: 19 (with the pooled image; the authors' training code)
            or 16 (without; their test code and published Cityscapes weights); its 16 are of width 1.
        width: factor of the encoder's channels; the paper's networks have 1, a teacher of the family may have more.
    """

    def __init__(
        self, num_classes: int, normalization: Normalization, p: int = 2, q: int = 8, skip: int = 19, width: int = 1
    ) -> None:
        if skip not in SKIP_CHANNELS:
            raise UserError(f"skip must be 16 or 19, not {skip}")
        if num_classes < len(DILATIONS):
            raise UserError(
                f"ESPNet's decoder needs {len(DILATIONS)} classes and more, not {num_classes}; choose espnet_c"
            )
        channels, head = _CHANNELS * width, FeatureInfo(num_classes, 8)
        features = {"encoder": FeatureInfo(channels, 8), "kd_logits": head, "auxiliary": head}
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
        """Return logits B K H W and the features of normalized images."""
        stem, level1, level2, features = self.encoder(images)
        kd_logits = self.classifier(features)
        up = _crop(self.up3(self.norm3(kd_logits)), level2)
        up = self.fuse2(self.join2(torch.cat([self.project2(level2), up], 1)))
        up = _crop(self.norm_act2(self.up2(up)), level1)
        up = self.fuse1(torch.cat([up, level1 if self.skip == 19 else stem], 1))
        logits = _crop(self.up1(up), images)
        return logits, {"encoder": features, "kd_logits": kd_logits, "auxiliary": kd_logits}

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
        """Return the checkpoint if Mehta et al. or Liu et al. wrote it."""
        return match_espnet(state)


ESPNetC.family = ESPNet.family = (ESPNetC, ESPNet)


def _crop(x: Tensor, like: Tensor) -> Tensor:
    """Crop `x` to the size of `like`: upsampling a map of an odd image gives a pixel too many."""
    return x[..., : like.shape[-2], : like.shape[-1]]
