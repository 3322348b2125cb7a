"""SegNet: VGG16 without its classifier, and its mirror image as decoder, which unpools with the encoder's indices.

Badrinarayanan et al., *SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation*, IEEE
Transactions on Pattern Analysis and Machine Intelligence 39(12), 2017 (arXiv 1511.00561).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.layers import initialize_convolutions, pad_to_multiple, unpool
from segkd.types import FeatureInfo

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions, by stage."""
_STRIDE = 2 ** len(_STAGES)


class SegNet(SegmentationModel):
    """SegNet; logits at full size.

    It has no classifier before its end, so the feature `kd_logits` is its output, B K H W. The feature `encoder` is the map
    after the last pooling, B 512 H/32 W/32. Images are padded with zeros to multiples of 32.
    """

    unpools = True
    min_size = 33  # at 32 the deepest map has one value per image, too few for BatchNorm to train on one image

    def __init__(self, num_classes: int, normalization: Normalization) -> None:
        features = {"encoder": FeatureInfo(_STAGES[-1][-1], _STRIDE), "kd_logits": FeatureInfo(num_classes, 1)}
        super().__init__(num_classes, normalization, features)
        stages = [*zip((3, *(widths[-1] for widths in _STAGES[:-1])), _STAGES, strict=True)]
        self.encoder = nn.ModuleList(_build_stage(channels, widths) for channels, widths in stages)
        # A decoder stage returns the input channels of its encoder stage, except for the first, whose input is the image.
        widths_back = [_STAGES[0][1:], *((*widths[1:], channels) for channels, widths in stages[1:])]
        self.decoder = nn.ModuleList(
            _build_stage(_STAGES[i][-1], widths_back[i]) for i in reversed(range(len(widths_back)))
        )
        self.classifier = nn.Conv2d(widths_back[0][-1], num_classes, 3, padding=1)
        initialize_convolutions(self)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits B K H W and the features of normalized images."""
        height, width = images.shape[-2:]
        x, pooling_indices = pad_to_multiple(images, _STRIDE), []
        for stage in self.encoder:
            x, indices = F.max_pool2d(stage(x), 2, return_indices=True)
            pooling_indices.append(indices)
        features = x
        for stage in self.decoder:
            x = stage(unpool(x, pooling_indices.pop()))
        logits = self.classifier(x)[..., :height, :width]
        return logits, {"encoder": features, "kd_logits": logits}


def _build_stage(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Build 3×3 convolutions, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)
